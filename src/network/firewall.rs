//! Rules of others that keep pods from getting anywhere, read off what `nft` and `iptables-legacy` list. PURE.

use serde_json::Value;

/// A chain of somebody else that every packet of its hook passes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    pub family: String,
    pub table: String,
    pub name: String,
    pub hook: Hook,
    /// Its policy.
    pub drops: bool,
}

/// Which packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    Forward,
    Input,
}

impl Hook {
    pub const ALL: [Self; 2] = [Self::Forward, Self::Input];

    /// The chain's name in iptables.
    pub fn legacy_chain(self) -> &'static str {
        match self {
            Self::Forward => "FORWARD",
            Self::Input => "INPUT",
        }
    }

    fn problem(self, chain: &str, how: &str, bridge: &str, note: &str) -> String {
        match self {
            Self::Forward => format!(
                "{chain} {how} what this host forwards{note}: unless a rule there accepts {bridge}, pods reach nothing and nobody reaches them"
            ),
            Self::Input => format!(
                "{chain} {how} what is sent to this host: unless a rule there accepts {bridge}, pods do not reach this host, pods on its network and Services that lead to them"
            ),
        }
    }
}

fn items<'a>(listed: &'a Value, kind: &'a str) -> impl Iterator<Item = &'a Value> {
    listed["nftables"].as_array().into_iter().flatten().map(move |item| &item[kind]).filter(|item| item.is_object())
}

/// The chains to look at, of `nft -j list chains`.
pub fn chains(listed: &Value, own: &str) -> Vec<Chain> {
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    items(listed, "chain")
        .filter(|chain| matches!(chain["family"].as_str(), Some("ip" | "inet")) && chain["table"] != own)
        .filter_map(|chain| {
            let hook = match chain["hook"].as_str() {
                Some("forward") => Hook::Forward,
                Some("input") => Hook::Input,
                _ => return None,
            };
            let [family, table, name] = ["family", "table", "name"].map(|key| word(&chain[key]));
            Some(Chain { family, table, name, hook, drops: chain["policy"] == "drop" })
        })
        .collect()
}

/// What is wrong with a chain, given its table as `nft -j list table` has it. A rule of that table that names
/// the bridge says that somebody thought of it.
pub fn problem(chain: &Chain, table: &Value, bridge: &str, note: &str) -> Option<String> {
    let verdict = |rule: &Value| {
        let last = rule["expr"].as_array().and_then(|all| all.last()).cloned().unwrap_or_default();
        ["drop", "reject"].into_iter().find(|word| last.get(word).is_some())
    };
    let rules = || items(table, "rule");
    let quoted = format!("\"{bridge}\"");
    if rules().any(|rule| verdict(rule).is_none() && rule["expr"].to_string().contains(&quoted)) {
        return None;
    }
    let unconditional = |rule: &&Value| {
        let mut expressions = rule["expr"].as_array().into_iter().flatten();
        expressions.all(|it| ["counter", "log", "drop", "reject"].iter().any(|word| it.get(word).is_some()))
    };
    let last = rules().filter(|rule| rule["chain"] == chain.name.as_str()).last();
    let ends = last.filter(unconditional).and_then(verdict);
    let how = match (chain.drops, ends) {
        (_, Some("reject")) => "at its end rejects",
        (_, Some(_)) => "at its end drops",
        (true, None) => "drops by default",
        (false, None) => return None,
    };
    let name = format!("chain {} of table {} {}", chain.name, chain.family, chain.table);
    Some(chain.hook.problem(&name, how, bridge, note))
}

/// What a chain that drops what is forwarded concerns besides: where `br_netfilter` has the host's IP filters see bridged
/// frames (ip-sysctl: `bridge-nf-call-iptables`), pods of one node do not reach each other either.
pub fn note(filters_bridged_frames: bool) -> &'static str {
    if filters_bridged_frames { " (bridge-nf-call-iptables is on: bridged frames too)" } else { "" }
}

/// The same for `iptables-legacy -S CHAIN`.
pub fn legacy_problem(hook: Hook, rules: &str, bridge: &str, note: &str) -> Option<String> {
    let chain = hook.legacy_chain();
    let target = |line: &str| line.split_once(" -j ").map(|(_, rest)| rest.split(' ').next().unwrap_or_default().to_owned());
    let closes = |line: &str| target(line).is_some_and(|target| ["DROP", "REJECT"].contains(&target.as_str()));
    let mut own = rules.lines().filter(|line| line.starts_with("-A "));
    if own.clone().any(|line| line.split(' ').any(|word| word == bridge) && !closes(line)) {
        return None;
    }
    let end = own.next_back().filter(|line| closes(line) && line.starts_with(&format!("-A {chain} -j ")));
    let how = match end.and_then(target).as_deref() {
        Some("REJECT") => "at its end rejects",
        Some(_) => "at its end drops",
        None if rules.lines().any(|line| line == format!("-P {chain} DROP")) => "drops by default",
        None => return None,
    };
    Some(hook.problem(&format!("iptables-legacy chain {chain}"), how, bridge, note))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn chain(hook: Hook, drops: bool) -> Chain {
        Chain { family: "ip".into(), table: "filter".into(), name: "C".into(), hook, drops }
    }

    fn table(rules: &[Value]) -> Value {
        let rules: Vec<Value> =
            rules.iter().map(|expr| json!({"rule": {"family": "ip", "table": "filter", "chain": "C", "expr": expr}})).collect();
        json!({"nftables": rules})
    }

    #[test]
    fn base_chains_of_others_are_found() {
        let of = |family: &str, table: &str, hook: &str| json!({"chain": {"family": family, "table": table, "name": "c", "hook": hook, "policy": "drop"}});
        let all = [
            of("ip", "podbay", "input"),
            of("ip6", "f", "input"),
            of("inet", "f", "input"),
            of("ip", "f", "forward"),
            of("ip", "f", "output"),
        ];
        let found = chains(&json!({ "nftables": all }), "podbay");
        assert_eq!(
            found.iter().map(|chain| (chain.family.as_str(), chain.hook)).collect::<Vec<_>>(),
            [("inet", Hook::Input), ("ip", Hook::Forward)]
        );
    }

    #[test]
    fn what_drops_everything_is_named() {
        let established = json!([{"match": {"left": {"ct": {"key": "state"}}, "right": ["established"]}}, {"accept": null}]);
        let reject = json!([{"counter": {"packets": 1, "bytes": 1}}, {"reject": {"type": "icmpx", "expr": "admin-prohibited"}}]);
        let invalid = json!([{"match": {"left": {"ct": {"key": "state"}}, "right": ["invalid"]}}, {"drop": null}]);
        let for_us = |verdict: &str| json!([{"match": {"left": {"meta": {"key": "iifname"}}, "right": "podbay0"}}, {verdict: null}]);
        let table_of =
            |policy: bool, rules: &[Value]| Hook::ALL.map(|hook| problem(&chain(hook, policy), &table(rules), "podbay0", "").is_some());
        assert_eq!(table_of(false, &[]), [false; 2]);
        assert_eq!(table_of(true, std::slice::from_ref(&established)), [true; 2], "a policy");
        assert_eq!(table_of(false, &[established.clone(), reject.clone()]), [true; 2], "an end that rejects");
        assert_eq!(table_of(false, &[reject.clone(), established.clone()]), [false; 2], "not at the end: that is somebody's trick");
        assert_eq!(table_of(false, &[invalid]), [false; 2], "conditional");
        assert_eq!(table_of(true, &[for_us("accept"), reject.clone()]), [false; 2], "somebody thought of us");
        assert_eq!(table_of(false, &[for_us("drop"), reject.clone()]), [true; 2]);
        let text = problem(&chain(Hook::Input, false), &table(&[reject]), "podbay0", "").expect("a problem");
        assert!(text.contains("chain C of table ip filter at its end rejects what is sent to this host"), "{text}");
    }

    #[test]
    fn legacy_rules_are_read_too() {
        let check = |rules: &str| legacy_problem(Hook::Forward, rules, "podbay0", "");
        assert_eq!(check("-P FORWARD ACCEPT\n"), None);
        let text = check("-P FORWARD DROP\n-A FORWARD -j DOCKER-USER\n").expect("a problem");
        assert!(text.starts_with("iptables-legacy chain FORWARD drops by default"), "{text}");
        assert!(check("-P FORWARD ACCEPT\n-A FORWARD -j REJECT --reject-with icmp-host-prohibited\n").is_some());
        assert_eq!(check("-P FORWARD ACCEPT\n-A FORWARD -s 192.0.2.1/32 -j DROP\n"), None);
        assert_eq!(check("-P FORWARD DROP\n-A FORWARD -i podbay0 -j ACCEPT\n"), None);
        assert_eq!(legacy_problem(Hook::Input, "-P FORWARD DROP\n", "podbay0", ""), None);
    }

    #[test]
    fn that_bridged_frames_are_filtered_is_noted_of_what_is_forwarded() {
        let named = |hook: Hook, note: &str| {
            let table = problem(&chain(hook, true), &table(&[]), "podbay0", note).expect("a problem");
            let legacy = legacy_problem(hook, &format!("-P {} DROP\n", hook.legacy_chain()), "podbay0", note).expect("a problem");
            [table, legacy].map(|text| text.contains("what this host forwards (bridge-nf-call-iptables is on: bridged frames too): unless"))
        };
        assert_eq!(named(Hook::Forward, note(true)), [true; 2]);
        assert_eq!(named(Hook::Forward, note(false)), [false; 2]);
        assert_eq!(named(Hook::Input, note(true)), [false; 2], "a frame that is bridged is not sent to this host");
        assert_eq!(note(false), "");
    }
}
