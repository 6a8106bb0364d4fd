//! `podbay get`: lists and single objects, as kubectl prints them.

use anyhow::bail;
use serde_json::{Value, json};

use super::args::{GetArgs, GetFormat};
use super::client::{self, connect, named_target, path, target, within};
use super::error::Outcome;
use super::output;
use crate::model::Kind;

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

/// What `podbay get all` lists, in kubectl's order: the kinds of its category "all".
const ALL: [Kind; 6] = [Kind::Pod, Kind::Service, Kind::Deployment, Kind::ReplicaSet, Kind::HorizontalPodAutoscaler, Kind::Job];

pub async fn run(args: &GetArgs) -> Outcome {
    let wanted = client::with_custom_kinds(&args.client, || wanted(&args.what)).await?;
    let named = wanted.iter().any(|(_, names)| !names.is_empty());
    if named && args.all_namespaces {
        bail!("a name and --all-namespaces do not go together");
    }
    if named && args.selector.is_some() {
        bail!("a name and --selector do not go together");
    }
    let client = connect(&args.client).await?;
    let namespace = (!args.all_namespaces).then(|| args.namespace.as_deref().unwrap_or("default"));
    let mut answers = Vec::new();
    for (kind, names) in &wanted {
        let values = answers_of(&client, args, *kind, namespace, names).await?;
        answers.push((*kind, values));
    }
    match args.output {
        GetFormat::Json => output::print(&output::json(&whole(answers))),
        GetFormat::Yaml => output::print(&output::clean(&serde_yaml::to_string(&whole(answers))?)),
        GetFormat::Name => answers.iter().for_each(|(kind, values)| values.iter().for_each(|value| output::print(&names(value, *kind)))),
        GetFormat::Table | GetFormat::Wide => tables(args, namespace, answers),
    }
    Ok(0)
}

/// Reads `KIND[,KIND…] [NAME…]` and `KIND/NAME…`; without names a kind is listed.
fn wanted(words: &[String]) -> anyhow::Result<Vec<(Kind, Vec<String>)>> {
    if words.iter().any(|word| word.contains('/')) {
        let one = |word: &String| {
            let (kind, name) = named_target(std::slice::from_ref(word))?;
            Ok((kind, vec![name]))
        };
        return words.iter().map(one).collect();
    }
    let (kinds, names) = words.split_first().map_or(("", &[][..]), |(kinds, names)| (kinds.as_str(), names));
    let mut wanted: Vec<(Kind, Vec<String>)> = Vec::new();
    for word in kinds.split(',') {
        let kinds = if word == "all" { ALL.to_vec() } else { vec![target(&[word.to_owned()])?.0] };
        wanted.extend(kinds.into_iter().map(|kind| (kind, names.to_vec())));
    }
    Ok(wanted)
}

/// One kind's answers: a list, or one for each name.
async fn answers_of(
    client: &kube::Client,
    args: &GetArgs,
    kind: Kind,
    namespace: Option<&str>,
    names: &[String],
) -> anyhow::Result<Vec<Value>> {
    let tabular = matches!(args.output, GetFormat::Table | GetFormat::Wide);
    let accept = if tabular { TABLE } else { "application/json" };
    let query = args.selector.as_deref().map(|selector| format!("?labelSelector={}", form_encoded(selector))).unwrap_or_default();
    let paths: Vec<String> = match names {
        [] => vec![path(kind, namespace, None)],
        names => names.iter().map(|name| path(kind, namespace, Some(name))).collect(),
    };
    let mut values = Vec::new();
    for path in paths {
        let request = http::Request::builder().uri(format!("{path}{query}")).header("accept", accept).body(Vec::new())?;
        values.push(within(client.request(request)).await?);
    }
    Ok(values)
}

/// One answer as it is, several as kubectl's List.
fn whole(answers: Vec<(Kind, Vec<Value>)>) -> Value {
    let mut values: Vec<Value> = answers.into_iter().flat_map(|(_, values)| values).collect();
    if values.len() == 1 {
        return values.remove(0);
    }
    let items: Vec<Value> = values
        .into_iter()
        .flat_map(|mut value| match value["items"].take() {
            Value::Array(items) => items,
            _ => vec![value],
        })
        .collect();
    json!({"apiVersion": "v1", "kind": "List", "items": items, "metadata": {"resourceVersion": ""}})
}

/// One table a kind; with several, an object's name says its kind.
fn tables(args: &GetArgs, namespace: Option<&str>, answers: Vec<(Kind, Vec<Value>)>) {
    let several = answers.len() > 1;
    let mut texts = Vec::new();
    for (kind, values) in answers {
        let rows: Vec<Value> = values.iter().flat_map(|value| value["rows"].as_array().into_iter().flatten().cloned()).collect();
        if rows.is_empty() {
            continue;
        }
        let mut table = json!({"columnDefinitions": values[0]["columnDefinitions"], "rows": rows});
        if several {
            for row in table["rows"].as_array_mut().into_iter().flatten() {
                let name = format!("{}/{}", qualified(kind), row["cells"][0].as_str().unwrap_or_default());
                row["cells"][0] = Value::String(name);
            }
        }
        let with_namespace = args.all_namespaces && kind.info().namespaced;
        texts.push(output::server_table(&table, args.output == GetFormat::Wide, with_namespace));
    }
    if texts.is_empty() {
        match namespace.filter(|_| several || args.all_namespaces || is_namespaced(&args.what)) {
            Some(namespace) => anstream::eprintln!("No resources found in {} namespace.", output::clean(namespace)),
            None => anstream::eprintln!("No resources found"),
        }
    }
    output::print(&texts.join("\n"));
}

fn is_namespaced(words: &[String]) -> bool {
    target(words).is_ok_and(|(kind, _)| kind.info().namespaced)
}

/// Percent-encodes what a query value must not hold.
pub(super) fn form_encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}

fn names(value: &Value, kind: Kind) -> String {
    let one = std::slice::from_ref(value);
    let objects = value["items"].as_array().map_or(one, Vec::as_slice);
    let name = |it: &Value| output::clean(it["metadata"]["name"].as_str().unwrap_or_default()).to_string();
    objects.iter().map(|it| format!("{}/{}\n", qualified(kind), name(it))).collect()
}

/// `deployment.apps`
fn qualified(kind: Kind) -> String {
    let info = kind.info();
    let group = if info.group.is_empty() { String::new() } else { format!(".{}", info.group) };
    format!("{}{group}", info.singular)
}

/// The objects behind the client's default namespace rules: one object by name.
pub(super) async fn object(client: &kube::Client, kind: Kind, namespace: Option<&str>, name: &str) -> anyhow::Result<Value> {
    client::get(client, &path(kind, Some(namespace.unwrap_or("default")), Some(name))).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> anyhow::Result<Vec<(Kind, Vec<String>)>> {
        wanted(&text.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn targets_are_read_as_kubectl_reads_them() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(read("po").unwrap(), [(Kind::Pod, names(&[]))]);
        assert_eq!(read("po,svc").unwrap(), [(Kind::Pod, names(&[])), (Kind::Service, names(&[]))]);
        assert_eq!(read("po a b").unwrap(), [(Kind::Pod, names(&["a", "b"]))]);
        assert_eq!(read("po/a deploy/b").unwrap(), [(Kind::Pod, names(&["a"])), (Kind::Deployment, names(&["b"]))]);
        assert_eq!(read("all").unwrap().len(), ALL.len());
        assert!(read("po/a b").is_err());
        assert!(read("po,nonsense").is_err());
    }

    #[test]
    fn several_answers_are_one_list() {
        let answers = vec![(Kind::Pod, vec![json!({"kind": "PodList", "items": [{"a": 1}, {"a": 2}]}), json!({"kind": "Pod", "a": 3})])];
        assert_eq!(whole(answers)["items"].as_array().map(Vec::len), Some(3));
        assert_eq!(whole(vec![(Kind::Pod, vec![json!({"kind": "PodList", "items": []})])])["kind"], "PodList");
    }
}
