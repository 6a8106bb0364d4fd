"""The official Python client against a cluster with real pods: list, watch, patch, apply, exec, logs, port-forward, custom
kinds, rights, watches that break off.

Run by tests/real/verbs.rs with $KUBECONFIG and the name of an image that holds busybox."""

import sys
import time

from kubernetes import client, config, watch
from kubernetes.client.rest import ApiException
from kubernetes.dynamic import DynamicClient
from kubernetes.stream import portforward, stream

IMAGE = sys.argv[1]
NAMESPACE = "default"

config.load_kube_config()
core, apps, batch = client.CoreV1Api(), client.AppsV1Api(), client.BatchV1Api()


def refused(status, reason, call, *arguments, **named):
    """The call must be refused in these words."""
    try:
        call(*arguments, **named)
    except ApiException as error:
        assert error.status == status and f'"reason":"{reason}"' in error.body.replace(" ", ""), error
        return error
    raise AssertionError(f"{call.__name__} was not refused")


def eventually(what, ask):
    """What `ask` answers once it is true."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        answer = ask()
        if answer:
            return answer
        time.sleep(0.1)
    raise AssertionError(f"timed out: {what}")


def config_maps():
    """Pages of one state, watches from it, conflicts, patches of each kind."""
    for number in range(5):
        body = client.V1ConfigMap(metadata=client.V1ObjectMeta(name=f"m{number}", labels={"set": "py"}), data={"n": str(number)})
        core.create_namespaced_config_map(NAMESPACE, body)
    refused(409, "AlreadyExists", core.create_namespaced_config_map, NAMESPACE, body)
    first = core.list_namespaced_config_map(NAMESPACE, label_selector="set=py", limit=2)
    core.delete_namespaced_config_map("m3", NAMESPACE)
    names, page = [item.metadata.name for item in first.items], first
    while page.metadata._continue:
        page = core.list_namespaced_config_map(NAMESPACE, label_selector="set=py", limit=2, _continue=page.metadata._continue)
        assert page.metadata.resource_version == first.metadata.resource_version
        names += [item.metadata.name for item in page.items]
    assert names == ["m0", "m1", "m2", "m3", "m4"], names
    exact = core.list_namespaced_config_map(
        NAMESPACE, label_selector="set=py", resource_version=first.metadata.resource_version, resource_version_match="Exact"
    )
    assert len(exact.items) == 5

    core.patch_namespaced_config_map("m0", NAMESPACE, {"data": {"n": "zero"}})
    seen = []
    events = watch.Watch().stream(
        core.list_namespaced_config_map,
        NAMESPACE,
        label_selector="set=py",
        resource_version=first.metadata.resource_version,
        timeout_seconds=30,
    )
    for event in events:
        seen.append((event["type"], event["object"].metadata.name))
        if len(seen) == 2:
            break
    assert seen == [("DELETED", "m3"), ("MODIFIED", "m0")], seen

    stale = core.read_namespaced_config_map("m1", NAMESPACE)
    core.patch_namespaced_config_map("m1", NAMESPACE, [{"op": "replace", "path": "/data/n", "value": "one"}])
    refused(409, "Conflict", core.replace_namespaced_config_map, "m1", NAMESPACE, stale)
    assert core.read_namespaced_config_map("m1", NAMESPACE).data == {"n": "one"}
    dry = core.delete_collection_namespaced_config_map(NAMESPACE, label_selector="set=py", dry_run="All")
    assert dry.kind is not None
    assert len(core.list_namespaced_config_map(NAMESPACE, label_selector="set=py").items) == 4
    core.delete_collection_namespaced_config_map(NAMESPACE, label_selector="set=py")
    assert core.list_namespaced_config_map(NAMESPACE, label_selector="set=py").items == []
    error = refused(404, "NotFound", core.read_namespaced_config_map, "m1", NAMESPACE)
    assert 'configmaps \\"m1\\" not found' in error.body


def server_side_apply():
    """Two managers share an object; conflicts, force, giving up."""
    dynamic = DynamicClient(client.ApiClient())
    maps = dynamic.resources.get(api_version="v1", kind="ConfigMap")

    def apply(manager, data, force=False):
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "shared"}, "data": data}
        return maps.server_side_apply(body=body, name="shared", namespace=NAMESPACE, field_manager=manager, force_conflicts=force)

    apply("one", {"a": "1", "b": "1"})
    both = apply("two", {"c": "1"})
    assert both.data.to_dict() == {"a": "1", "b": "1", "c": "1"}
    assert sorted(entry.manager for entry in both.metadata.managedFields) == ["one", "two"]
    try:
        apply("two", {"a": "2"})
        raise AssertionError("not refused")
    except Exception as error:  # the dynamic client has classes of its own
        assert getattr(error, "status", None) == 409 and "FieldManagerConflict" in str(error.body), error
    apply("two", {"a": "2"}, force=True)
    left = apply("one", {})
    assert left.data.to_dict() == {"a": "2"}, left
    maps.delete(name="shared", namespace=NAMESPACE)


def workloads():
    """A Deployment, its scale and its status; a Job that keeps its pods unless told otherwise."""
    labels = {"app": "py"}
    container = client.V1Container(name="main", image=IMAGE, command=["sleep", "3600"])
    template = client.V1PodTemplateSpec(
        metadata=client.V1ObjectMeta(labels=labels),
        spec=client.V1PodSpec(containers=[container], termination_grace_period_seconds=0),
    )
    spec = client.V1DeploymentSpec(replicas=1, selector=client.V1LabelSelector(match_labels=labels), template=template)
    apps.create_namespaced_deployment(NAMESPACE, client.V1Deployment(metadata=client.V1ObjectMeta(name="py"), spec=spec))
    scale = apps.patch_namespaced_deployment_scale("py", NAMESPACE, {"spec": {"replicas": 2}})
    assert scale.spec.replicas == 2 and scale.status.selector == "app=py"
    eventually("two are ready", lambda: apps.read_namespaced_deployment_status("py", NAMESPACE).status.ready_replicas == 2)
    pods = core.list_namespaced_pod(NAMESPACE, label_selector="app=py", field_selector="status.phase=Running").items
    assert len(pods) == 2
    apps.delete_namespaced_deployment("py", NAMESPACE, propagation_policy="Foreground")
    eventually("all are gone", lambda: not core.list_namespaced_pod(NAMESPACE, label_selector="app=py").items)


def streams():
    """Logs, exec and port-forward of one pod."""
    script = "echo begun; while :; do echo -n answer | nc -l -p 8080; done"
    container = client.V1Container(name="main", image=IMAGE, command=["sh", "-c", script], stdin=True)
    spec = client.V1PodSpec(containers=[container], termination_grace_period_seconds=0)
    core.create_namespaced_pod(NAMESPACE, client.V1Pod(metadata=client.V1ObjectMeta(name="talks"), spec=spec))
    for event in watch.Watch().stream(core.list_namespaced_pod, NAMESPACE, field_selector="metadata.name=talks", timeout_seconds=60):
        if event["object"].status.phase == "Running":
            break
    eventually("it has begun", lambda: core.read_namespaced_pod_log("talks", NAMESPACE) == "begun\n")
    said = stream(
        core.connect_get_namespaced_pod_exec, "talks", NAMESPACE, command=["sh", "-c", "echo out; echo err >&2"],
        stderr=True, stdin=False, stdout=True, tty=False,
    )  # fmt: skip
    assert sorted(said.split()) == ["err", "out"], said
    session = stream(
        core.connect_get_namespaced_pod_exec, "talks", NAMESPACE, command=["sh", "-c", "read word; echo heard $word; exit 3"],
        stderr=True, stdin=True, stdout=True, tty=False, _preload_content=False,
    )  # fmt: skip
    session.write_stdin("hello\n")
    session.run_forever(timeout=30)
    assert session.read_stdout() == "heard hello\n" and session.returncode == 3, session.returncode
    forward = portforward(core.connect_get_namespaced_pod_portforward, "talks", NAMESPACE, ports="8080")
    socket = forward.socket(8080)
    socket.settimeout(30)
    assert socket.recv(16) == b"answer"
    forward.close()
    gone = core.delete_namespaced_pod("talks", NAMESPACE, grace_period_seconds=0)
    assert gone.metadata.name == "talks", "the deletion answers with the pod"
    eventually("it is gone", lambda: not core.list_namespaced_pod(NAMESPACE, field_selector="metadata.name=talks").items)


def custom_kinds():
    """A kind is defined, its objects are made, looked at, scaled, told of, and go with it."""
    api, own = client.ApiextensionsV1Api(), client.CustomObjectsApi()
    things = ("example.org", "v1", NAMESPACE, "things")
    spec = {"type": "object", "properties": {"size": {"type": "integer", "maximum": 9}, "color": {"type": "string", "default": "red"}}}
    status = {"type": "object", "properties": {"replicas": {"type": "integer"}}}
    schema = {"type": "object", "properties": {"spec": spec, "status": status}}
    scale = {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.replicas"}
    version = {
        "name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}, "scale": scale}, "selectableFields": [{"jsonPath": ".spec.color"}],
    }  # fmt: skip
    names = {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"}
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "things.example.org"},
        "spec": {"group": "example.org", "scope": "Namespaced", "names": names, "versions": [version]},
    }  # fmt: skip
    api.create_custom_resource_definition(definition)

    def established():
        conditions = api.read_custom_resource_definition("things.example.org").status.conditions or []
        return any(it.type == "Established" and it.status == "True" for it in conditions)

    eventually("it is established", established)

    def thing(name, **fields):
        return {"apiVersion": "example.org/v1", "kind": "Thing", "metadata": {"name": name}, "spec": fields}

    made = own.create_namespaced_custom_object(*things, thing("a", size=1))
    assert made["spec"] == {"size": 1, "color": "red"}, made
    error = refused(422, "Invalid", own.create_namespaced_custom_object, *things, thing("b", size=10))
    assert "spec.size" in error.body, error.body
    own.create_namespaced_custom_object(*things, thing("b", size=2, color="blue"))
    blue = own.list_namespaced_custom_object(*things, field_selector="spec.color=blue")
    assert [item["metadata"]["name"] for item in blue["items"]] == ["b"], blue
    scaled = own.patch_namespaced_custom_object_scale(*things, "a", {"spec": {"replicas": 3}})
    assert scaled["kind"] == "Scale" and scaled["spec"]["replicas"] == 3, scaled
    told = own.patch_namespaced_custom_object_status(*things, "a", {"spec": {"size": 9}, "status": {"replicas": 2}})
    assert told["spec"]["size"] == 3 and told["status"] == {"replicas": 2}, told
    api.delete_custom_resource_definition("things.example.org")
    eventually("the kind is gone", lambda: not [it for it in api.list_custom_resource_definition().items if it.spec.group == "example.org"])
    refused(404, "NotFound", own.list_namespaced_custom_object, *things)


def rights():
    """An account sees what its role lets it, and asks what that is."""
    access = client.RbacAuthorizationV1Api()
    core.create_namespaced_service_account(NAMESPACE, {"metadata": {"name": "py"}})
    rule = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"]}
    access.create_namespaced_role(NAMESPACE, {"metadata": {"name": "py"}, "rules": [rule]})
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "py"}
    subject = {"kind": "ServiceAccount", "name": "py", "namespace": NAMESPACE}
    access.create_namespaced_role_binding(NAMESPACE, {"metadata": {"name": "py"}, "roleRef": role, "subjects": [subject]})
    request = {"spec": {"audiences": [], "expirationSeconds": 600}}
    token = core.create_namespaced_service_account_token("py", NAMESPACE, request).status.token

    configuration = client.Configuration.get_default_copy()
    configuration.cert_file = configuration.key_file = None
    configuration.api_key = {"authorization": f"Bearer {token}"}
    as_account = client.ApiClient(configuration)
    theirs = client.CoreV1Api(as_account)
    assert isinstance(theirs.list_namespaced_config_map(NAMESPACE).items, list)
    error = refused(403, "Forbidden", theirs.list_namespaced_secret, NAMESPACE)
    assert "system:serviceaccount:default:py" in error.body, error.body
    ask = client.AuthorizationV1Api(as_account)
    for resource, verb, allowed in (("configmaps", "list", True), ("configmaps", "delete", False), ("pods", "get", False)):
        attributes = {"namespace": NAMESPACE, "verb": verb, "resource": resource}
        review = ask.create_self_subject_access_review({"spec": {"resourceAttributes": attributes}})
        assert review.status.allowed is allowed, (resource, verb, review.status)
    core.delete_namespaced_service_account("py", NAMESPACE)
    refused(401, "Unauthorized", theirs.list_namespaced_config_map, NAMESPACE)
    access.delete_namespaced_role_binding("py", NAMESPACE)
    access.delete_namespaced_role("py", NAMESPACE)


def recovery():
    """A watch that broke off goes on where it was; who asks for what is not there yet is told to wait."""

    def changes(since, count):
        """The next so many changes of `w` since a version."""
        seen = []
        events = watch.Watch().stream(
            core.list_namespaced_config_map, NAMESPACE, field_selector="metadata.name=w", resource_version=since, timeout_seconds=30
        )
        for event in events:
            seen.append((event["type"], (event["object"].data or {}).get("n"), event["object"].metadata.resource_version))
            if len(seen) == count:
                break
        return seen

    before = core.list_namespaced_config_map(NAMESPACE).metadata.resource_version
    core.create_namespaced_config_map(NAMESPACE, {"metadata": {"name": "w"}, "data": {"n": "0"}})
    core.patch_namespaced_config_map("w", NAMESPACE, {"data": {"n": "1"}})
    first = changes(before, 1)
    assert [it[:2] for it in first] == [("ADDED", "0")], first
    core.patch_namespaced_config_map("w", NAMESPACE, {"data": {"n": "2"}})
    core.delete_namespaced_config_map("w", NAMESPACE)
    rest = changes(first[0][2], 3)
    assert [it[:2] for it in rest] == [("MODIFIED", "1"), ("MODIFIED", "2"), ("DELETED", "2")], rest
    error = refused(504, "Timeout", core.list_namespaced_config_map, NAMESPACE, resource_version="9999999999")
    assert "Too large resource version" in error.body


for part in (config_maps, server_side_apply, workloads, streams, custom_kinds, rights, recovery):
    part()
    print(part.__name__, "works")
