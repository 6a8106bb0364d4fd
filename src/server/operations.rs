//! JSON patch operations, with Kubernetes' bounds: what a few lines can copy or nest has an end. PURE.

use json_patch::{Patch, PatchOperation};
use serde_json::Value;

use super::body::OBJECT_LIMIT;
use super::fault::Fault;

/// Of one patch.
pub const OPERATIONS: usize = 10_000;
/// How deep values may lie in one another; text that is read is bounded by its parser.
const DEPTH: usize = 256;

/// Reads a JSON patch.
///
/// # Errors
/// 400 for what is none, 413 for too many operations.
pub fn read(bytes: &[u8]) -> Result<Patch, Fault> {
    let patch: Patch = serde_json::from_slice(bytes).map_err(|error| Fault::bad_request(format!("the JSON patch: {error}")))?;
    if patch.len() > OPERATIONS {
        return Err(too_much(format!("{} operations; at most {OPERATIONS} are taken", patch.len())));
    }
    Ok(patch)
}

/// Carries the operations out.
///
/// # Errors
/// 422 for one that does not fit the value, 413 for what copies or nests too much.
pub fn carry_out(patch: &Patch, value: &mut Value) -> Result<(), Fault> {
    let mut moved = 0;
    for operation in patch.iter() {
        bounded(operation, value, &mut moved)?;
        json_patch::patch(value, std::slice::from_ref(operation)).map_err(|error| {
            Fault::new(422, "Invalid", format!("the server rejected our request due to an error in our request: {error}"))
        })?;
    }
    Ok(())
}

fn bounded(operation: &PatchOperation, value: &Value, moved: &mut usize) -> Result<(), Fault> {
    let added = match operation {
        PatchOperation::Add(it) => Some(&it.value),
        PatchOperation::Replace(it) => Some(&it.value),
        PatchOperation::Copy(it) => value.pointer(it.from.as_str()),
        PatchOperation::Move(it) => value.pointer(it.from.as_str()),
        PatchOperation::Remove(_) | PatchOperation::Test(_) => None,
    };
    let Some(added) = added else { return Ok(()) };
    let above = operation.path().as_str().matches('/').count();
    if DEPTH.checked_sub(above).is_none_or(|left| !fits(added, left)) {
        return Err(too_much(format!("values more than {DEPTH} deep in one another")));
    }
    if matches!(operation, PatchOperation::Copy(_) | PatchOperation::Move(_)) {
        *moved += serde_json::to_vec(added).map_or(usize::MAX, |text| text.len());
        if *moved > OBJECT_LIMIT {
            return Err(too_much(format!("copies of more than {OBJECT_LIMIT} bytes in all")));
        }
    }
    Ok(())
}

fn fits(value: &Value, left: usize) -> bool {
    let Some(below) = left.checked_sub(1) else { return false };
    match value {
        Value::Array(items) => items.iter().all(|item| fits(item, below)),
        Value::Object(fields) => fields.values().all(|field| fits(field, below)),
        _ => true,
    }
}

fn too_much(what: String) -> Fault {
    Fault::new(413, "RequestEntityTooLarge", format!("the JSON patch is too large: {what}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn patched(value: Value, operations: &Value) -> Result<Value, u16> {
        let mut value = value;
        let patch = read(operations.to_string().as_bytes()).map_err(|fault| fault.code)?;
        carry_out(&patch, &mut value).map(|()| value).map_err(|fault| fault.code)
    }

    #[test]
    fn operations_do_as_the_standard_says() {
        let operations = json!([
            {"op": "test", "path": "/a", "value": [1]},
            {"op": "copy", "from": "/a", "path": "/b"},
            {"op": "move", "from": "/a/0", "path": "/c"},
            {"op": "replace", "path": "/a", "value": 2},
            {"op": "remove", "path": "/c"},
        ]);
        assert_eq!(patched(json!({"a": [1]}), &operations), Ok(json!({"a": 2, "b": [1]})));
        assert_eq!(patched(json!({}), &json!([{"op": "remove", "path": "/a"}])), Err(422));
        assert_eq!(patched(json!({}), &json!([{"op": "copy", "from": "/a", "path": "/b"}])), Err(422));
        assert_eq!(patched(json!({}), &json!({"op": "add"})), Err(400));
    }

    #[test]
    fn copies_of_copies_have_an_end() {
        let mut operations = vec![json!({"op": "add", "path": "/x", "value": ["A".repeat(1000)]})];
        operations.resize(40, json!({"op": "copy", "from": "/x", "path": "/x/-"}));
        assert_eq!(patched(json!({}), &json!(operations)), Err(413));
        operations.truncate(8);
        assert!(patched(json!({}), &json!(operations)).is_ok());
    }

    #[test]
    fn values_moved_into_one_another_have_an_end() {
        let mut operations = vec![json!({"op": "add", "path": "/x", "value": {}})];
        for index in 0..2000 {
            let (from, to) = if index % 2 == 0 { ("/x", "/y") } else { ("/y", "/x") };
            operations.push(json!({"op": "add", "path": to, "value": {"a": {"a": {}}}}));
            operations.push(json!({"op": "move", "from": from, "path": format!("{to}/a/a/a")}));
        }
        assert_eq!(patched(json!({}), &json!(operations)), Err(413));
    }

    #[test]
    fn there_are_not_more_than_ten_thousand() {
        let mut operations = vec![json!({"op": "test", "path": "/x", "value": 1}); 10_000];
        assert_eq!(patched(json!({"x": 1}), &json!(operations)), Ok(json!({"x": 1})));
        operations.push(json!({"op": "remove", "path": "/x"}));
        assert_eq!(patched(json!({"x": 1}), &json!(operations)), Err(413));
    }
}
