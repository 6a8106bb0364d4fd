//! Who a container runs as: names and numbers, by the container's own account files. PURE.
//!
//! Shared by both programs.

use super::wire::{Failed, User};

/// What the container's own account files say about its user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub home: String,
}

fn refuse(attempt: String, cause: &str) -> Failed {
    Failed { attempt, cause: cause.to_owned(), errno: 0 }
}

/// The account of a user, by the texts of /etc/passwd (`name:x:uid:gid:…:home:shell`) and /etc/group
/// (`name:x:gid:member,member`).
pub fn resolve(user: &User, passwd: &str, group: &str) -> Result<Account, Failed> {
    let (user_name, group_name) = match user.name.split_once(':') {
        Some((user_name, group_name)) => (user_name, group_name),
        None => (user.name.as_str(), ""),
    };
    let wanted = user.uid.or_else(|| if user_name.is_empty() { Some(0) } else { user_name.parse().ok() });
    let line = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| match wanted {
        Some(uid) => fields.get(2).and_then(|field| field.parse().ok()) == Some(uid),
        None => fields.first() == Some(&user_name),
    });
    let field = |index: usize| line.as_ref().and_then(|fields| fields.get(index)).copied();
    let number = |index: usize| field(index).and_then(|text| text.parse::<u32>().ok());
    let uid = wanted
        .or_else(|| number(2))
        .ok_or_else(|| refuse(format!("find user {user_name:?}"), "the image's /etc/passwd has none of that name"))?;
    let entries = || group.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let gid = match (user.gid, group_name) {
        (Some(gid), _) => gid,
        (None, "") => number(3).unwrap_or(0),
        (None, name) => match name.parse() {
            Ok(gid) => gid,
            Err(_) => entries()
                .find(|fields| fields.first() == Some(&name))
                .and_then(|fields| fields.get(2)?.parse().ok())
                .ok_or_else(|| refuse(format!("find group {name:?}"), "the image's /etc/group has none of that name"))?,
        },
    };
    let mut groups = user.groups.clone();
    if let Some(login) = field(0).filter(|_| !user.exact) {
        let member = |fields: &Vec<&str>| fields.get(3).is_some_and(|names| names.split(',').any(|n| n == login));
        groups.extend(entries().filter(member).filter_map(|fields| fields.get(2)?.parse::<u32>().ok()));
    }
    groups.push(gid);
    groups.sort_unstable();
    groups.dedup();
    // The kernel takes it for "stay what you are", which is root.
    if let Some(id) = groups.iter().chain([&uid]).find(|id| **id == u32::MAX) {
        return Err(refuse(format!("become user {:?}", user.name), &format!("{id} is no id")));
    }
    let home = field(5).filter(|home| !home.is_empty()).unwrap_or(if uid == 0 { "/root" } else { "/" }).to_owned();
    Ok(Account { uid, gid, groups, home })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/srv/app:/bin/sh\nbroken\n";
    const GROUP: &str = "root:x:0:\napp:x:1001:\nmedia:x:44:app,other\nbad:x:\n";

    fn who(name: &str, uid: Option<u32>, gid: Option<u32>) -> Result<(u32, u32, Vec<u32>, String), String> {
        let user = User { uid, gid, name: name.into(), groups: vec![7], ..User::default() };
        resolve(&user, PASSWD, GROUP).map(|a| (a.uid, a.gid, a.groups, a.home)).map_err(|f| f.cause)
    }

    #[test]
    fn users_are_found_by_name_and_number() {
        assert_eq!(who("", None, None), Ok((0, 0, vec![0, 7], "/root".into())));
        assert_eq!(who("app", None, None), Ok((1000, 1001, vec![7, 44, 1001], "/srv/app".into())));
        assert_eq!(who("1000", None, None), Ok((1000, 1001, vec![7, 44, 1001], "/srv/app".into())));
        assert_eq!(who("app:media", None, None), Ok((1000, 44, vec![7, 44], "/srv/app".into())));
        assert_eq!(who("4711:12", None, None), Ok((4711, 12, vec![7, 12], "/".into())));
        assert_eq!(who("app", Some(0), None), Ok((0, 0, vec![0, 7], "/root".into())));
        assert_eq!(who("", Some(5), Some(6)), Ok((5, 6, vec![6, 7], "/".into())));
    }

    #[test]
    fn exact_groups_are_those_that_were_said() {
        let user = User { name: "app".into(), groups: vec![7], exact: true, ..User::default() };
        assert_eq!(resolve(&user, PASSWD, GROUP).map(|account| account.groups).ok(), Some(vec![7, 1001]));
    }

    #[test]
    fn an_id_that_means_stay_as_you_are_is_refused() {
        for (name, uid, gid) in
            [("4294967295", None, None), ("", Some(u32::MAX), None), ("", Some(5), Some(u32::MAX)), ("app:4294967295", None, None)]
        {
            assert_eq!(who(name, uid, gid), Err("4294967295 is no id".to_owned()), "{name} {uid:?} {gid:?}");
        }
        // 2^32 is 0 in 32 bits.
        for name in ["4294967296", "4294967296:0", "app:4294967296", "-1"] {
            assert!(who(name, None, None).is_err_and(|cause| cause.contains("none of that name")), "{name}");
        }
        assert_eq!(who("4294967294", None, None).map(|account| account.0), Ok(u32::MAX - 1));
    }

    #[test]
    fn unknown_names_are_refused() {
        assert!(who("nobody", None, None).is_err());
        assert!(who("app:nogroup", None, None).is_err());
    }
}
