//! Podbay: Kubernetes manifests straight from git on plain Linux hosts. **This page is the map.**
//!
//! ```text
//!   git repo / directory                                kubectl · CI · podbay CLI
//!          │ sync::{git,dir}                                    │
//!          ▼                                                    ▼
//!     sync::render ──► sync::plan ──► store.commit ◄──── server (REST, identity, rights)
//!     files to objects  desired/live    admit, one          one generic handler
//!                       /inventory      revision
//!                                         │ watch
//!            ┌────────────────────────────┼─────────────────────────────┐
//!            ▼                            ▼                             ▼
//!     control::<kind>::plan         schedule::plan              agent (one per node)
//!     Deployment→ReplicaSet→Pod     Pod → Node                  agent::plan ─► cri ─► runtime, shim
//!            └───► store.commit ◄─────────┘                             │        └──► network
//!                       ▲                                               │
//!                       └────────────────── status ────────────────────┘
//! ```
//!
//! One ring, one direction: components meet only in the store and none calls another. The one
//! exception is what the server proxies: logs, exec, attach and port-forward to the node API, and HTTP to nodes, pods and
//! what is behind Services. Webhooks of admission are asked
//! before the store is: by the server, about the pods of `control` by the store it is given (`server::hooks`), and about
//! what sources write by `sync`, whose plan says what is to be asked and is made anew with the answers.
//!
//! # Reading order
//!
//! 1. [`model`]: what an object is; kinds (custom ones too), defaults, validation, manifests, field ownership
//! 2. [`plan`]: what a decision is; [`admit`]: what every write passes
//! 3. [`store`]: snapshot, transaction, watch; memory and disk
//! 4. [`driver`] and [`clock`]: the loop, and the only source of `now`; [`footprint`]: what a tree takes on the disk; [`inside`]:
//!    what is in a directory, by whatever links
//! 5. [`control`], [`schedule`]: pure planners over the store's state
//! 6. [`sync`]: from a commit to objects; [`simulate`]: what a commit would do
//! 7. [`server`], [`tls`]: the Kubernetes REST API over the store, and the webhooks it asks before it writes
//! 8. [`agent`]: from bound pods to [`cri`] verbs, which the engine carries out or, over a socket, any other
//!    runtime; [`network`]: addresses, Services, host ports
//! 9. [`runtime`] and the `podbay-shim` program: images, namespaces, cgroups, processes; other OCI runtimes in the place
//!    of the last step, and `podbay oci`, which is one
//! 10. [`cli`], [`config`], [`assemble`]: the verbs, the settings, which part stands behind which seam
//!
//! # The import rule (a test reads it: `tests/it/tidy.rs`)
//!
//! ```text
//!  model ◄─ plan, admit, store::{snapshot,transaction} ◄─ every */plan.rs      PURE: import only pure files
//!    ▲
//!  store · driver · clock · footprint · inside · tls · cri (traits) · network (traits) · sync::source (trait)
//!    ▲
//!  control  schedule  sync  server  agent  runtime  cli  simulate              never each other, except pure files
//!    ▲
//!  assemble, main                                                              know which implementation is which
//! ```
//!
//! A controller cannot know that containers exist, the engine cannot know that a store exists; only
//! the agent sees both. What the autoscaler needs to know of pods' use comes through a trait of its own
//! (`control::autoscaler::Measures`), behind which `assemble` puts the server's figures; so does what webhooks say to
//! sync and to previews (`sync::webhooks::AskWebhooks`).
//!
//! # Four walks through the house
//!
//! - **A commit.** `sync::act` fetches a tree, `sync::render` turns it into objects or every error,
//!   `sync::plan` compares them with what is live and what the inventory says, and with what admission
//!   webhooks make of it, the store takes the result as one transaction.
//! - **A preview.** `simulate::preview` makes the same plan on a copy of the state, `simulate::settle`
//!   runs the same controllers and the same scheduler with an ideal kubelet until only time or a
//!   process' end could change it; the plan's objects, the pods by which the two states differ and
//!   what the end lacks are printed.
//! - **A pod.** `control::replica_set` creates it, `schedule` binds it, the agent of that node sees it
//!   through the REST API; `agent::plan` names the next step, `agent::act` takes it through [`cri`],
//!   looks again, and writes the status.
//! - **A container.** [`runtime`] makes a sandbox: a cgroup, a shim process that holds the pod's
//!   namespaces, an interface from [`network`]. The shim starts containers from prepared steps, is
//!   their parent, writes their logs and exit records, and outlives the daemon. Where a RuntimeClass names
//!   another OCI runtime, that one starts the container from a bundle, as a child of the same shim.
//!
//! # Who writes what
//!
//! | field | writer |
//! |---|---|
//! | spec of objects in a source | that source (`sync`), as admission webhooks let it pass; but for what is another's below (`sync::unsaid`) |
//! | Secrets `podbay-source.*` in `kube-system`: the accepted set | that source (`sync`) |
//! | ConfigMaps `podbay-source.*` in `kube-system`: what a removed source had created | that source (`sync`) |
//! | Pod (creation), ReplicaSet, EndpointSlice, workload status | `control` |
//! | Pod.spec: what its RuntimeClass and its account add | `admit` |
//! | Pod.spec.nodeName, condition PodScheduled | `schedule` |
//! | PersistentVolume.spec.claimRef, PersistentVolumeClaim.spec.volumeName | `control`; with a pod's node, where its claim waits for that: `schedule` |
//! | on a claim: the node where its volume is to be made | `schedule`; that it has to be another: `control` |
//! | PersistentVolume of `podbay.dev/local-path`: its creation, its end, the finalizer of that name | `control`; the finalizer goes with the directory: the node's agent |
//! | status of both; the claims of pods' own | `control` |
//! | Pod.status (all else), Node.status, Lease | the node's agent |
//! | Source.status | `sync`; that a Job had its run and is gone: `control::job` |
//! | `replicas` of what an autoscaler targets, unless a source says them; HorizontalPodAutoscaler.status | `control::autoscaler` |
//! | Node.spec.podCIDR, node taints for health | `control` |
//! | ClusterRole.rules of a role that gathers others; ServiceAccount `default` and ConfigMap `kube-root-ca.crt` of each namespace | `control` |
//! | Secrets with a token of an account: what they hold | `control`; the token, which takes the key: `server` |
//! | default roles, the class `local-path` (once) | `server`, at its start |
//! | Service `default/kubernetes` and its endpoints, the CA and the settings in `kube-system` | `server`, at its start and when somebody else writes them |
//! | CustomResourceDefinition.status, and the finalizer that waits for the objects of the kind | `admit`; once names get free, `control::definition` |
//! | CertificateSigningRequest.status | `server`; whether it is approved: a person, or the role that lets its asker have it. Its end: `control` |
//! | uid, creationTimestamp, generation, clusterIP, resourceVersion | `admit` and the store |
//!
//! # What is deliberately absent
//!
//! No informer caches (a snapshot is one), no leader election (one server), no plugin interfaces
//! inside the scheduler, no second code path for `podbay up`: it uses the same client and handlers
//! over an in-process connection. No UID in the names that controllers choose: a preview knows only
//! placeholders, and it says the names that will be (`control::naming`).

pub mod admit;
pub mod agent;
pub mod assemble;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod cri;
pub mod driver;
pub mod footprint;
pub mod inside;
pub mod model;
pub mod network;
pub mod plan;
pub mod runtime;
pub mod schedule;
pub mod server;
pub mod simulate;
pub mod store;
pub mod sync;
pub mod tls;
