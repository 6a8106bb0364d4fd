//! Targets of custom kinds, by the paths that their definitions say.

use super::*;

fn widgets(selector: Option<&str>) -> Value {
    let mut scale = json!({"specReplicasPath": ".spec.pool.size", "statusReplicasPath": ".status.size"});
    if let Some(path) = selector {
        scale["labelSelectorPath"] = json!(path);
    }
    let size = json!({"type": "integer", "minimum": 0, "maximum": 5});
    let spec = json!({"type": "object", "properties": {"pool": {"type": "object", "properties": {"size": size}}}});
    let status = json!({"type": "object", "properties": {"size": {"type": "integer"}, "pods": {"type": "string"}}});
    let schema = json!({"type": "object", "properties": {"spec": spec, "status": status}});
    let version = |name: &str, subresources: Value| {
        json!({"name": name, "served": true, "storage": name == "v1",
        "schema": {"openAPIV3Schema": schema}, "subresources": subresources})
    };
    json!({"metadata": {"name": "widgets.shop.example.com"}, "spec": {"group": "shop.example.com", "scope": "Namespaced",
        "names": {"plural": "widgets", "kind": "Widget"},
        "versions": [version("v1", json!({"status": {}, "scale": scale})), version("v1alpha1", json!({"status": {}}))]}})
}

/// A world where the autoscaler's target is a Widget, with two busy pods.
fn world(definition: &Value, widget: &Value, spec: &Value) -> World {
    let mut whole =
        json!({"behavior": at_once(), "scaleTargetRef": {"apiVersion": "shop.example.com/v1", "kind": "Widget", "name": "shop"}});
    for (name, value) in spec.as_object().into_iter().flatten() {
        whole[name] = value.clone();
    }
    let mut world = World::new(1, &whole).with_pods(&[State::Uses(100), State::Uses(100)]);
    let definition = Object::from_value(Kind::CustomResourceDefinition, definition.clone()).unwrap();
    world.commit(&Transaction::new("admin").with(Write::Create(definition)));
    let kind = world.state.definitions().kind_of("shop.example.com/v1", "Widget").unwrap();
    world.state.insert(Object::from_value(kind, widget.clone()).unwrap());
    world
}

fn widget(spec: &Value, status: &Value) -> Value {
    json!({"apiVersion": "shop.example.com/v1", "kind": "Widget", "metadata": {"name": "shop", "namespace": "web", "uid": "widget"}, "spec": spec, "status": status})
}

/// The same definition with a scale in its other version alone, which is not the one that is stored.
fn scaled_as_alpha(definition: &Value) -> Value {
    let mut definition = definition.clone();
    let scale = definition["spec"]["versions"][0]["subresources"].as_object_mut().unwrap().remove("scale").unwrap();
    definition["spec"]["versions"][1]["subresources"]["scale"] = scale;
    definition
}

fn stored(world: &World) -> Value {
    let kind = world.state.definitions().kind_of("shop.example.com/v1", "Widget").unwrap();
    world.state.find(kind, "web", "shop").unwrap().value()
}

const PODS: Option<&str> = Some(".status.pods");

fn sized(size: i64) -> Value {
    widget(&json!({"pool": {"size": size}}), &json!({"size": size, "pods": "app=shop"}))
}

#[test]
fn a_custom_kind_is_scaled_where_its_definition_says() {
    let mut world = world(&widgets(PODS), &sized(2), &json!({}));
    world.step();
    assert_eq!(stored(&world)["spec"], json!({"pool": {"size": 4}}));
    assert_eq!(
        (world.says("ScalingActive").as_str(), world.says("AbleToScale").as_str()),
        ("True ValidMetricFound", "True SucceededRescale")
    );
    assert_eq!((&world.status()["currentReplicas"], &world.status()["desiredReplicas"]), (&json!(2), &json!(4)));
    let owner = stored(&world)["metadata"]["managedFields"][0].clone();
    assert_eq!((&owner["manager"], &owner["fieldsV1"]), (&json!("podbay-autoscaler"), &json!({"f:spec": {"f:pool": {"f:size": {}}}})));
    assert_eq!(world.replicas(), 1, "the Deployment of that name is none of its");
    // Back, once less is to be done.
    world.later(15);
    world.pods(&[State::Uses(0); 4]);
    world.step();
    assert_eq!(stored(&world)["spec"]["pool"]["size"], 1);
}

#[test]
fn what_its_schema_refuses_is_told() {
    let mut world = world(&widgets(PODS), &sized(2), &json!({})).with_pods(&[State::Uses(200), State::Uses(200)]);
    let notes = world.step().plan.notes;
    assert_eq!((stored(&world)["spec"]["pool"]["size"].as_i64(), world.says("AbleToScale").as_str()), (Some(2), "False FailedUpdateScale"));
    assert!(notes[0].warning && notes[0].reason.message.contains("New size: 8: "), "{notes:?}");
}

#[test]
fn who_does_not_say_its_pods_is_only_kept_within_bounds() {
    let unsaid = widget(&json!({"pool": {"size": 2}}), &json!({"size": 2}));
    let broken = widget(&json!({"pool": {"size": 2}}), &json!({"size": 2, "pods": "app in shop"}));
    for (definition, widget, word) in [
        (widgets(None), &sized(2), "has no selector"),
        (widgets(PODS), &unsaid, "has no selector"),
        (widgets(PODS), &broken, "the selector of"),
    ] {
        let mut unknown = world(&definition, widget, &json!({}));
        let notes = unknown.step().plan.notes;
        assert_eq!(
            (stored(&unknown)["spec"]["pool"]["size"].as_i64(), unknown.says("ScalingActive").as_str()),
            (Some(2), "False InvalidSelector")
        );
        assert!(notes.iter().any(|note| note.warning && note.reason.message.contains(word)), "{notes:?}");
        let mut bound = world(&definition, widget, &json!({"minReplicas": 3}));
        bound.step();
        assert_eq!(stored(&bound)["spec"]["pool"]["size"], 3);
    }
}

#[test]
fn who_has_no_size_or_no_scale_is_told_so() {
    let target =
        |version: &str| json!({"scaleTargetRef": {"apiVersion": format!("shop.example.com/{version}"), "kind": "Widget", "name": "shop"}});
    for (widget, version, able, word) in [
        (widget(&json!({}), &json!({"pods": "app=shop"})), "v1", "False FailedGetScale", "spec.pool.size says none"),
        (sized(2), "v1alpha1", "False FailedGetScale", "cannot be scaled"),
        // One that is not served is taken for the one that is stored.
        (sized(2), "v7", "True SucceededRescale", "New size: 4"),
    ] {
        let mut world = world(&widgets(PODS), &widget, &target(version));
        let notes = world.step().plan.notes;
        assert_eq!(world.says("AbleToScale"), able, "{version}");
        assert!(notes[0].reason.message.contains(word), "{notes:?}");
    }
}

#[test]
fn a_preview_holds_the_bounds_of_a_custom_kind() {
    let controllers: [Arc<dyn Controller>; 1] = [Arc::new(Bounds)];
    for (widget, size) in [(sized(2), json!(3)), (sized(4), json!(4)), (sized(0), json!(0)), (widget(&json!({}), &json!({})), Value::Null)]
    {
        let mut world = world(&widgets(None), &widget, &json!({"minReplicas": 3}));
        let settled = settle(world.state.clone(), &controllers, start());
        world.state = settled.state;
        assert_eq!((&stored(&world)["spec"]["pool"]["size"], settled.stuck), (&size, false), "{widget}");
    }
}

#[test]
fn the_scale_is_that_of_the_version_an_autoscaler_names() {
    let bounds: Arc<dyn Controller> = Arc::new(Bounds);
    for (version, size) in [("v1", 2), ("v1alpha1", 3)] {
        let reference = json!({"apiVersion": format!("shop.example.com/{version}"), "kind": "Widget", "name": "shop"});
        let mut world = world(&scaled_as_alpha(&widgets(None)), &sized(2), &json!({"minReplicas": 3, "scaleTargetRef": reference}));
        let widget = world.state.definitions().kind_of("shop.example.com/v1", "Widget").unwrap();
        let widget = world.state.find(widget, "web", "shop").unwrap();
        assert_eq!(bounds.keys(&world.state, widget), [key()], "a change of what it scales is looked at");
        let settled = settle(world.state.clone(), &[Arc::clone(&bounds)], start());
        world.state = settled.state;
        assert_eq!((stored(&world)["spec"]["pool"]["size"].as_i64(), settled.stuck), (Some(size), false), "{version}");
        world.step();
        assert_eq!(stored(&world)["spec"]["pool"]["size"].as_i64(), Some(size), "as the autoscaler itself does it: {version}");
    }
    let world = world(&widgets(None), &sized(2), &json!({}));
    let others = world.state.iter().filter(|it| it.kind() != Kind::HorizontalPodAutoscaler && it.kind().name() != "Widget");
    assert!(others.into_iter().all(|it| bounds.keys(&world.state, it).is_empty()));
}
