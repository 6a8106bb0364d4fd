//! Turns the CRI's wire definition into Rust, without `protoc`, and Kubernetes' types into their schemas:
//! made here they cost the program a compressed file, not the code that makes them.

use std::io::Write as _;
use std::path::Path;

use flate2::{Compression, write::ZlibEncoder};
use k8s_openapi::api::{
    admissionregistration::v1 as admission, apps::v1 as apps, autoscaling::v1 as autoscaling_v1, autoscaling::v2 as autoscaling,
    batch::v1 as batch, certificates::v1 as certificates, coordination::v1 as coordination, core::v1 as core, discovery::v1 as discovery,
    events::v1 as events, node::v1 as node, rbac::v1 as rbac, storage::v1 as storage,
};
use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value, json};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as extensions;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    println!("cargo::rerun-if-changed=build.rs");
    cri()?;
    schemas()
}

fn cri() -> Result<(), Failure> {
    let definition = "src/cri/wire/runtime.proto";
    println!("cargo::rerun-if-changed={definition}");
    let files = protox::compile([definition], ["src/cri/wire"])?;
    // Lists in one order always.
    tonic_prost_build::configure().btree_map(".").skip_debug(["runtime.v1.AuthConfig"]).compile_fds(files)?;
    Ok(())
}

/// Writes `{"kinds": {KIND: DEFINITION}, "definitions": {NAME: SCHEMA}}`, schemas as in OpenAPI 3.0, with and without what
/// they say to persons.
fn schemas() -> Result<(), Failure> {
    let own = "src/model/schema/source.json";
    println!("cargo::rerun-if-changed={own}");
    let mut generator = SchemaSettings::openapi3().into_generator();
    let mut kinds = Map::new();
    for (kind, definition) in kubernetes(&mut generator) {
        kinds.insert(kind.to_owned(), definition.into());
    }
    let mut definitions = generator.take_definitions(true);
    let Value::Object(own) = serde_json::from_slice(&std::fs::read(own)?)? else { return Err(format!("{own}: no object").into()) };
    definitions.extend(own);
    kinds.insert("Source".to_owned(), "dev.podbay.v1.Source".into());
    let mut document = json!({"kinds": kinds, "definitions": definitions});
    pack("schemas.json.zlib", &document)?;
    // What every process reads is a quarter of it.
    without_descriptions(&mut document);
    pack("shapes.json.zlib", &document)
}

fn pack(name: &str, document: &Value) -> Result<(), Failure> {
    let out = Path::new(&std::env::var("OUT_DIR")?).join(name);
    let mut file = ZlibEncoder::new(std::fs::File::create(out)?, Compression::best());
    file.write_all(document.to_string().as_bytes())?;
    file.finish()?;
    Ok(())
}

/// A field that is called so has a schema, not a text.
fn without_descriptions(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, value| name != "description" || !value.is_string());
            fields.values_mut().for_each(without_descriptions);
        }
        Value::Array(items) => items.iter_mut().for_each(without_descriptions),
        _ => {}
    }
}

/// Each of Kubernetes' kinds that is served, and the name of its definition. A version besides the stored one is named with
/// its group and version.
fn kubernetes(generator: &mut SchemaGenerator) -> Vec<(&'static str, String)> {
    let mut all = vec![
        ("autoscaling/v1 HorizontalPodAutoscaler", definition::<autoscaling_v1::HorizontalPodAutoscaler>(generator)),
        ("events.k8s.io/v1 Event", definition::<events::Event>(generator)),
    ];
    macro_rules! add {
        ($($module:ident :: $kind:ident),+ $(,)?) => {
            $(all.push((stringify!($kind), definition::<$module::$kind>(generator)));)+
        };
    }
    add!(
        core::Namespace,
        extensions::CustomResourceDefinition,
        core::Node,
        node::RuntimeClass,
        storage::StorageClass,
        storage::CSIDriver,
        storage::CSINode,
        core::PersistentVolume,
        core::PersistentVolumeClaim,
        core::ServiceAccount,
        core::Secret,
        core::ConfigMap,
        rbac::ClusterRole,
        rbac::Role,
        rbac::ClusterRoleBinding,
        rbac::RoleBinding,
        certificates::CertificateSigningRequest,
        core::Service,
        core::Pod,
        apps::ReplicaSet,
        apps::Deployment,
        batch::Job,
        autoscaling::HorizontalPodAutoscaler,
        discovery::EndpointSlice,
        coordination::Lease,
        core::Event,
        admission::MutatingWebhookConfiguration,
        admission::ValidatingWebhookConfiguration,
    );
    all
}

fn definition<T: schemars::JsonSchema>(generator: &mut SchemaGenerator) -> String {
    let reference = generator.subschema_for::<T>();
    let path = reference.get("$ref").and_then(Value::as_str).unwrap_or_default();
    path.rsplit('/').next().unwrap_or_default().to_owned()
}
