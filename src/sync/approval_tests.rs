//! A plan is approved that is not the one that waits: what is told of the two.

use super::names::APPROVE;
use super::tests::{World, config};
use crate::model::SourceStatus;

fn many(from: usize, to: usize) -> String {
    (from..to).map(|index| config(&format!("c{index:02}"), "1")).collect()
}

fn secret(value: &str) -> String {
    format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: s}}\nstringData: {{key: {value}}}\n---\n")
}

fn approve(world: &mut World, id: &str) -> SourceStatus {
    let id = id.to_owned();
    world.edit_source("web", |source| drop(source.metadata.annotations.get_or_insert_default().insert(APPROVE.to_owned(), id)));
    world.again("web")
}

#[test]
fn the_answer_to_an_older_approval_says_what_differs() {
    let mut world = World::with("web");
    world.put("web", "r1", &[("a.yaml", &(many(0, 20) + &secret("geheim")))]);
    let first = world.put("web", "r2", &[("a.yaml", &(many(0, 10) + &secret("streng")))]).pending_plan.unwrap();
    let (new, changed) = (config("new", "1"), config("c00", "2"));
    let status = world.put("web", "r3", &[("a.yaml", &(changed + &many(1, 11) + &secret("vertraulich") + &new))]);
    let second = status.pending_plan.clone().unwrap();
    let rest = world.state.revision();
    world.again("web");
    assert_eq!(world.state.revision(), rest, "nothing is written when nothing is new");
    let status = approve(&mut world, &first);
    let told = format!(
        "plan {} was approved, but this one is {}: new in it: ~ ConfigMap default/c00, + ConfigMap default/new; \
         no longer in it: - ConfigMap default/c10; it is of revision r3, not r2",
        &first[..12],
        &second[..12]
    );
    assert_eq!(status.errors.last(), Some(&told));
    let status = approve(&mut world, &first.replace(|_| true, "0"));
    assert!(status.errors.last().is_some_and(|error| error.ends_with(": that plan is not known any more")), "{:?}", status.errors);
    // Neither what a Secret says nor anything to guess it by.
    let kept = serde_json::to_string(&status.waiting_plans).unwrap();
    assert!(kept.contains("\"~ Secret default/s\"") && !kept.contains("vertraulich") && !kept.contains("dmVydHJhdWxpY2g"), "{kept}");
    let status = approve(&mut world, &second);
    assert_eq!((status.errors.len(), status.approved_plan.as_ref()), (0, Some(&second)));
    assert_eq!(status.waiting_plans.iter().map(|plan| &plan.id).collect::<Vec<_>>(), [&second, &first]);
}

#[test]
fn only_the_last_few_plans_are_kept() {
    let mut world = World::with("web");
    world.put("web", "r", &[("a.yaml", &many(0, 20))]);
    for revision in 0..9 {
        world.put("web", &format!("r{revision}"), &[("a.yaml", &many(0, 10))]);
    }
    let kept: Vec<String> = world.get_source("web").status.unwrap().waiting_plans.into_iter().map(|plan| plan.revision).collect();
    assert_eq!(kept, ["r8", "r7", "r6", "r5"]);
}
