//! The roles that are there from the start: Kubernetes' own, as far as there is something here that they speak of. PURE.
//!
//! Lists are separated by blanks; the core group is the empty text.

use k8s_openapi::api::rbac::v1::{AggregationRule, ClusterRole, ClusterRoleBinding, PolicyRule, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use crate::model::rights::gather;
use crate::model::{Key, Kind, Object, RBAC};
use crate::store::snapshot::Snapshot;
use crate::store::transaction::{Precondition, Write};

/// `false` keeps what an admin made of a role: nothing is added again.
const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
const BOOTSTRAPPING: (&str, &str) = ("kubernetes.io/bootstrapping", "rbac-defaults");

/// Verbs, API group, resources.
type Rule = (&'static str, &'static str, &'static str);

struct Row {
    name: &'static str,
    /// Into which other role its rules go: `admin` by the label `rbac.authorization.k8s.io/aggregate-to-admin`.
    into: &'static str,
    /// Its rules are those of the roles that go into this.
    gathers: &'static str,
    rules: &'static [Rule],
    /// Paths that may be read; of `*` all, in every way.
    urls: &'static str,
    /// The groups it is bound to.
    groups: &'static str,
    /// The users.
    users: &'static str,
}

const fn row(name: &'static str, rules: &'static [Rule]) -> Row {
    Row { name, into: "", gathers: "", rules, urls: "", groups: "", users: "" }
}

const CERTIFICATES: &str = "certificates.k8s.io";
/// As whom this server connects to nodes: the common name of its certificate (`tls::SERVER_CLIENT`).
const SERVER: &str = "podbay-server";
const READ: &str = "get list watch";
const WRITE: &str = "create delete deletecollection patch update";
const BOTH: &str = "create delete deletecollection get list patch update watch";

const ROWS: &[Row] = &[
    Row { urls: "*", groups: "system:masters", ..row("cluster-admin", &[("*", "*", "*")]) },
    Row { into: "view", ..row("system:aggregate-to-view", VIEW) },
    Row { into: "edit", ..row("system:aggregate-to-edit", EDIT) },
    Row { into: "admin", ..row("system:aggregate-to-admin", ADMIN) },
    // In this order, so that each finds the rules of the one before it.
    Row { gathers: "view", into: "edit", ..row("view", &[]) },
    Row { gathers: "edit", into: "admin", ..row("edit", &[]) },
    Row { gathers: "admin", ..row("admin", &[]) },
    Row {
        urls: "/api /api/* /apis /apis/* /healthz /livez /openapi /openapi/* /readyz /version /version/",
        groups: "system:authenticated",
        ..row("system:discovery", &[])
    },
    Row {
        groups: "system:authenticated",
        ..row(
            "system:basic-user",
            &[
                ("create", "authorization.k8s.io", "selfsubjectaccessreviews selfsubjectrulesreviews"),
                ("create", "authentication.k8s.io", "selfsubjectreviews"),
            ],
        )
    },
    Row {
        urls: "/healthz /livez /readyz /version /version/",
        groups: "system:authenticated system:unauthenticated",
        ..row("system:public-info-viewer", &[])
    },
    Row {
        urls: "/healthz /healthz/* /livez /livez/* /metrics /metrics/slis /readyz /readyz/*",
        groups: "system:monitoring",
        ..row("system:monitoring", &[])
    },
    Row {
        urls: "/.well-known/openid-configuration /.well-known/openid-configuration/ /openid/v1/jwks /openid/v1/jwks/",
        groups: "system:serviceaccounts",
        ..row("system:service-account-issuer-discovery", &[])
    },
    row(
        "system:auth-delegator",
        &[("create", "authentication.k8s.io", "tokenreviews"), ("create", "authorization.k8s.io", "subjectaccessreviews")],
    ),
    // A kubelet asks back whether the server that connects to it may.
    Row {
        users: SERVER,
        ..row(
            "system:kubelet-api-admin",
            &[
                (READ, "", "nodes"),
                ("proxy", "", "nodes"),
                ("*", "", "nodes/configz nodes/healthz nodes/log nodes/metrics nodes/pods nodes/proxy nodes/stats"),
            ],
        )
    },
    // Beside a kubelet; a node of Podbay's needs none.
    Row {
        users: "system:kube-proxy",
        ..row(
            "system:node-proxier",
            &[
                ("list watch", "", "services"),
                (READ, "", "nodes"),
                ("create patch update", "", "events"),
                ("create patch update", "events.k8s.io", "events"),
                ("list watch", "discovery.k8s.io", "endpointslices"),
            ],
        )
    },
    Row {
        groups: "system:bootstrappers",
        ..row("system:node-bootstrapper", &[("create get list watch", CERTIFICATES, "certificatesigningrequests")])
    },
    Row {
        groups: "system:bootstrappers",
        ..row(
            "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
            &[("create", CERTIFICATES, "certificatesigningrequests/nodeclient")],
        )
    },
    Row {
        groups: "system:nodes",
        ..row(
            "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
            &[("create", CERTIFICATES, "certificatesigningrequests/selfnodeclient")],
        )
    },
    // Bound to nobody: the node authoriser lets each node do this with what is its own.
    row("system:node", NODE),
];

const VIEW: &[Rule] = &[
    (READ, "", "configmaps endpoints persistentvolumeclaims persistentvolumeclaims/status pods replicationcontrollers"),
    (READ, "", "replicationcontrollers/scale serviceaccounts services services/status"),
    (READ, "", "bindings events limitranges namespaces/status pods/log pods/status replicationcontrollers/status"),
    (READ, "", "resourcequotas resourcequotas/status namespaces"),
    (READ, "discovery.k8s.io", "endpointslices"),
    (READ, "apps", "controllerrevisions daemonsets daemonsets/status deployments deployments/scale deployments/status"),
    (READ, "apps", "replicasets replicasets/scale replicasets/status statefulsets statefulsets/scale statefulsets/status"),
    (READ, "autoscaling", "horizontalpodautoscalers horizontalpodautoscalers/status"),
    (READ, "batch", "cronjobs cronjobs/status jobs jobs/status"),
    (READ, "policy", "poddisruptionbudgets poddisruptionbudgets/status"),
    (READ, "networking.k8s.io", "ingresses ingresses/status networkpolicies"),
    (READ, "podbay.dev", "sources"),
];

const EDIT: &[Rule] = &[
    (READ, "", "pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy"),
    ("impersonate", "", "serviceaccounts"),
    (WRITE, "", "pods pods/attach pods/exec pods/portforward pods/proxy"),
    ("create", "", "pods/eviction serviceaccounts/token"),
    (WRITE, "", "configmaps events persistentvolumeclaims replicationcontrollers replicationcontrollers/scale secrets"),
    (WRITE, "", "serviceaccounts services services/proxy"),
    (WRITE, "apps", "daemonsets deployments deployments/rollback deployments/scale replicasets replicasets/scale"),
    (WRITE, "apps", "statefulsets statefulsets/scale"),
    (WRITE, "autoscaling", "horizontalpodautoscalers"),
    (WRITE, "batch", "cronjobs jobs"),
    (WRITE, "policy", "poddisruptionbudgets"),
    (WRITE, "networking.k8s.io", "ingresses networkpolicies"),
    (BOTH, "coordination.k8s.io", "leases"),
];

const ADMIN: &[Rule] = &[("create", "authorization.k8s.io", "localsubjectaccessreviews"), (BOTH, RBAC, "rolebindings roles")];

const NODE: &[Rule] = &[
    ("create", "authentication.k8s.io", "tokenreviews"),
    ("create", "authorization.k8s.io", "localsubjectaccessreviews subjectaccessreviews"),
    (READ, "", "services namespaces"),
    ("create get list watch", "", "nodes"),
    ("patch update", "", "nodes nodes/status"),
    ("create patch update", "", "events"),
    ("create patch update", "events.k8s.io", "events"),
    (READ, "", "pods secrets configmaps"),
    ("get", "", "persistentvolumeclaims"),
    ("get list patch watch", "", "persistentvolumes"),
    ("create delete", "", "pods"),
    ("patch update", "", "pods/status"),
    ("create", "", "pods/eviction serviceaccounts/token"),
    ("get", "", "serviceaccounts"),
    ("create delete get patch update", "coordination.k8s.io", "leases"),
    (READ, "node.k8s.io", "runtimeclasses"),
    ("create delete get patch update", "storage.k8s.io", "csinodes"),
    (READ, "storage.k8s.io", "csidrivers"),
    ("create get list watch", CERTIFICATES, "certificatesigningrequests"),
    (READ, "discovery.k8s.io", "endpointslices"),
];

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

fn rules(row: &Row) -> Vec<PolicyRule> {
    let resources = row.rules.iter().map(|(verbs, group, resources)| PolicyRule {
        verbs: words(verbs),
        api_groups: Some(vec![(*group).to_owned()]),
        resources: Some(words(resources)),
        ..PolicyRule::default()
    });
    let verb = if row.urls == "*" { "*" } else { "get" };
    let paths = (!row.urls.is_empty()).then(|| PolicyRule {
        verbs: words(verb),
        non_resource_urls: Some(words(row.urls)),
        ..PolicyRule::default()
    });
    resources.chain(paths).collect()
}

fn meta(name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        labels: Some([(BOOTSTRAPPING.0.to_owned(), BOOTSTRAPPING.1.to_owned())].into()),
        annotations: Some([(AUTOUPDATE.to_owned(), "true".to_owned())].into()),
        ..ObjectMeta::default()
    }
}

fn aggregate_label(into: &str) -> (String, String) {
    (format!("{RBAC}/aggregate-to-{into}"), "true".to_owned())
}

fn role(row: &Row) -> ClusterRole {
    let mut metadata = meta(row.name);
    if !row.into.is_empty() {
        metadata.labels.get_or_insert_default().extend([aggregate_label(row.into)]);
    }
    let selector = |into| LabelSelector { match_labels: Some([aggregate_label(into)].into()), ..LabelSelector::default() };
    let aggregation = (!row.gathers.is_empty()).then(|| AggregationRule { cluster_role_selectors: Some(vec![selector(row.gathers)]) });
    ClusterRole { metadata, aggregation_rule: aggregation, rules: Some(rules(row)).filter(|rules| !rules.is_empty()) }
}

fn binding(row: &Row) -> Option<ClusterRoleBinding> {
    let subject = |(kind, name): (&str, String)| Subject { kind: kind.to_owned(), name, api_group: Some(RBAC.to_owned()), namespace: None };
    let named = [("Group", row.groups), ("User", row.users)]
        .into_iter()
        .flat_map(|(kind, names)| words(names).into_iter().map(move |it| (kind, it)));
    let subjects: Vec<Subject> = named.filter(|(_, name)| !name.is_empty()).map(subject).collect();
    let role_ref = RoleRef { api_group: Some(RBAC.to_owned()), kind: "ClusterRole".to_owned(), name: row.name.to_owned() };
    (!subjects.is_empty()).then(|| ClusterRoleBinding { metadata: meta(row.name), role_ref, subjects: Some(subjects) })
}

/// The writes after which every default role and binding says at least what it said at first. None where all is well.
pub fn reconcile(state: &Snapshot) -> Vec<Write> {
    let mut writes = Vec::new();
    let mut fresh = Snapshot::default();
    for row in ROWS {
        let mut wanted = role(row);
        let key = Key::cluster(Kind::ClusterRole, row.name);
        if let Some(rule) = &wanted.aggregation_rule {
            // Later the controller's work: at the start there is something to go by at once.
            wanted.rules = Some(gather(rule, &key, state.list(Kind::ClusterRole).chain(fresh.list(Kind::ClusterRole))));
        }
        let gathers = wanted.aggregation_rule.is_some();
        match state.get(&key) {
            None => {
                let object = Object::new(wanted);
                fresh.insert(object.clone());
                writes.push(Write::Create(object));
            }
            Some(current) => writes.extend(update(current, |role: &mut ClusterRole| {
                add_labels(&mut role.metadata, &wanted.metadata);
                if !gathers {
                    add(&mut role.rules, wanted.rules);
                }
            })),
        }
    }
    for wanted in ROWS.iter().filter_map(binding) {
        match state.get(&Key::cluster(Kind::ClusterRoleBinding, wanted.metadata.name.clone().unwrap_or_default())) {
            None => writes.push(Write::Create(Object::new(wanted))),
            // Somebody binds another role by this name: whom to is theirs to say.
            Some(current) if current.get::<ClusterRoleBinding>().is_none_or(|it| it.role_ref != wanted.role_ref) => {}
            Some(current) => writes.extend(update(current, |it: &mut ClusterRoleBinding| add(&mut it.subjects, wanted.subjects))),
        }
    }
    writes
}

fn update<T: crate::model::ApiType>(current: &Object, change: impl FnOnce(&mut T)) -> Option<Write> {
    if current.annotation(AUTOUPDATE) == Some("false") {
        return None;
    }
    let changed = current.edit(change)?;
    (changed != *current).then(|| Write::Update(changed, Precondition::seen(current)))
}

fn add<T: PartialEq>(list: &mut Option<Vec<T>>, wanted: Option<Vec<T>>) {
    for it in wanted.into_iter().flatten() {
        if list.as_ref().is_none_or(|list| !list.contains(&it)) {
            list.get_or_insert_default().push(it);
        }
    }
}

fn add_labels(meta: &mut ObjectMeta, wanted: &ObjectMeta) {
    let labels = meta.labels.get_or_insert_default();
    for (name, value) in wanted.labels.iter().flatten() {
        labels.entry(name.clone()).or_insert_with(|| value.clone());
    }
}
