//! What a commit drops, and still needs.

use super::look::Look;
use super::tests::{World, tree};
use crate::model::{Key, Kind};

#[test]
fn a_namespace_does_not_go_while_something_is_wanted_in_it() {
    let namespace = |more: &str| format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: shop{more}}}\n---\n");
    let inside = |name: &str| format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: shop}}\n---\n");
    let without = [("a.yaml", inside("b") + &inside("a"))];
    let without: Vec<(&str, &str)> = without.iter().map(|(path, text)| (*path, text.as_str())).collect();
    let key = Key::cluster(Kind::Namespace, "shop");
    // Also of a set that was accepted when nobody looked at that.
    for accepted in [false, true] {
        let mut world = World::with("web");
        world.put("web", "r1", &[("a.yaml", &(namespace("") + &inside("a") + &inside("b")))]);
        world.look_at("web", tree("r2", &without));
        let Look::Read(read) = &world.looks["web"] else { panic!("it reads well") };
        let digest = Some(read.rendered.set_digest.clone());
        if accepted {
            world.edit_status("web", |status| status.accepted_set = digest);
        }
        let status = world.again("web");
        let told = "a.yaml:7:21: ConfigMap shop/a needs Namespace shop, which the source no longer has (and so does 1 more object)";
        assert_eq!(status.errors[0], told);
        assert_eq!((status.pending_plan, status.accepted_revision.as_deref()), (None, Some("r1")), "nobody can approve it");
        assert!(world.state.get(&key).is_some_and(|live| !live.is_deleting()));
    }
    // One that may stay is no longer the source's, and what is in it goes on.
    let mut world = World::with("web");
    let kept = namespace(", annotations: {argocd.argoproj.io/sync-options: Prune=false}");
    world.put("web", "r1", &[("a.yaml", &(kept + &inside("a") + &inside("b")))]);
    let status = world.put("web", "r2", &without);
    assert_eq!((status.errors.len(), status.accepted_revision.as_deref()), (0, Some("r2")));
    assert!(world.state.get(&key).is_some_and(|live| !live.is_deleting()));
}
