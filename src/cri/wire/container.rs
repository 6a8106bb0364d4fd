//! A container's configuration, from the wire and onto it. PURE.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use super as wire;
use super::sandbox::{ids_from_wire, ids_to_wire, known, refuse_namespaces, refuse_selinux, resources_to_wire, wanted_resources};
use super::security_profile::ProfileType;
use super::signal;
use crate::cri::CriError;
use crate::cri::types::{
    AppArmor, ContainerConfig, ContainerMetadata, Device, ImageVolume, Mount, Seccomp, SecurityContext, default_paths,
};

/// Where a container's record keeps the name its user has for the image, if that is another one.
const USER_IMAGE: &str = "podbay.dev/user-specified-image";

/// What the wire says a container is to be; what cannot be done is refused here, with its name.
pub fn from_wire(config: wire::ContainerConfig) -> Result<ContainerConfig, CriError> {
    let metadata = config.metadata.filter(|metadata| !metadata.name.is_empty());
    let metadata = metadata.ok_or_else(|| CriError::Invalid("the container has no metadata with a name".into()))?;
    let image = config.image.map(image_from_wire).filter(|(image, _)| !image.is_empty());
    let (image, user_image) = image.ok_or_else(|| CriError::Invalid(format!("container {} has no image", metadata.name)))?;
    let is_below = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    if !Path::new(&config.log_path).components().all(is_below) {
        return Err(CriError::Invalid(format!("log_path {:?} is not below the pod's log_directory", config.log_path)));
    }
    let mut annotations = config.annotations;
    if !user_image.is_empty() && user_image != image {
        annotations.insert(USER_IMAGE.to_owned(), user_image);
    }
    let linux = config.linux.unwrap_or_default();
    Ok(ContainerConfig {
        metadata: ContainerMetadata { name: metadata.name, attempt: metadata.attempt },
        image,
        command: config.command,
        args: config.args,
        working_dir: config.working_dir,
        envs: config.envs.into_iter().map(|pair| (pair.key, pair.value)).collect(),
        mounts: config.mounts.into_iter().map(mount_from_wire).collect::<Result<_, _>>()?,
        devices: config.devices.into_iter().map(device_from_wire).collect::<Result<_, _>>()?,
        cdi_devices: config.cdi_devices.into_iter().map(|device| device.name).collect(),
        labels: config.labels,
        annotations,
        log_path: config.log_path.into(),
        stdin: config.stdin,
        stdin_once: config.stdin_once,
        tty: config.tty,
        resources: wanted_resources(linux.resources)?,
        security: security_from_wire(linux.security_context)?,
        stop_signal: signal::from_wire(config.stop_signal),
        termination_message_path: String::new(),
    })
}

/// An image by name or id, and by the name its user has for it. Every handler has the same images.
pub fn image_from_wire(spec: wire::ImageSpec) -> (String, String) {
    (spec.image, spec.user_specified_image)
}

/// Where it is to be, and whether there is such a device, only the runtime can tell.
fn device_from_wire(device: wire::Device) -> Result<Device, CriError> {
    let named = !device.permissions.is_empty() && device.permissions.chars().all(|letter| "rwm".contains(letter));
    if !named {
        let text = format!("device {}: permissions {:?} are not some of r, w and m", device.host_path, device.permissions);
        return Err(CriError::Invalid(text));
    }
    Ok(Device { host_path: device.host_path.into(), container_path: device.container_path.into(), permissions: device.permissions })
}

fn device_to_wire(device: &Device) -> wire::Device {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    wire::Device {
        container_path: text(&device.container_path),
        host_path: text(&device.host_path),
        permissions: device.permissions.clone(),
    }
}

fn mount_from_wire(mount: wire::Mount) -> Result<Mount, CriError> {
    let image = image_volume_from_wire(&mount)?;
    let mapped = !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty();
    let ids = mapped.then(|| ids_from_wire(&mount.uid_mappings, &mount.gid_mappings)).transpose()?;
    if mount.recursive_read_only && (!mount.readonly || mount.propagation != 0) {
        return Err(CriError::Invalid(format!("mount {}: recursive_read_only needs readonly, and no propagation", mount.container_path)));
    }
    let propagation = match known("propagation", mount.propagation)? {
        wire::MountPropagation::PropagationPrivate => "",
        wire::MountPropagation::PropagationHostToContainer => "rslave",
        wire::MountPropagation::PropagationBidirectional => "rshared",
    };
    Ok(Mount {
        container_path: mount.container_path.into(),
        host_path: mount.host_path.into(),
        readonly: mount.readonly,
        propagation: propagation.into(),
        recursive_readonly: mount.recursive_read_only,
        flags: Vec::new(),
        ids,
        image,
    })
}

fn image_volume_from_wire(mount: &wire::Mount) -> Result<Option<ImageVolume>, CriError> {
    let refuse = |cause: &str| Err(CriError::Invalid(format!("mount {}: {cause}", mount.container_path)));
    let Some(spec) = mount.image.clone().filter(|spec| !spec.image.is_empty()) else {
        return if mount.image_sub_path.is_empty() { Ok(None) } else { refuse("image_sub_path without an image") };
    };
    if !mount.readonly {
        return refuse("an image is mounted read-only");
    }
    if !mount.host_path.is_empty() || mount.propagation != 0 {
        return refuse("an image has no host_path and no propagation");
    }
    let sub_path = Path::new(&mount.image_sub_path);
    if !sub_path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        return refuse("image_sub_path is not a path below the image's root");
    }
    let (image, user_image) = image_from_wire(spec);
    Ok(Some(ImageVolume { image, user_image, sub_path: sub_path.to_owned(), id: String::new() }))
}

/// A mount in the wire's words.
pub fn mount_to_wire(mount: &Mount) -> wire::Mount {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let propagation = match mount.propagation.as_str() {
        "rslave" => wire::MountPropagation::PropagationHostToContainer,
        "rshared" => wire::MountPropagation::PropagationBidirectional,
        _ => wire::MountPropagation::PropagationPrivate,
    };
    wire::Mount {
        container_path: text(&mount.container_path),
        // Where an image is on the host is nobody's affair.
        host_path: if mount.image.is_some() { String::new() } else { text(&mount.host_path) },
        readonly: mount.readonly,
        propagation: propagation.into(),
        recursive_read_only: mount.recursive_readonly,
        uid_mappings: mount.ids.map(ids_to_wire).unwrap_or_default(),
        gid_mappings: mount.ids.map(ids_to_wire).unwrap_or_default(),
        image: mount.image.as_ref().map(|volume| wire::ImageSpec {
            image: volume.image.clone(),
            user_specified_image: volume.user_image.clone(),
            image_ref: volume.id.clone(),
            ..wire::ImageSpec::default()
        }),
        image_sub_path: mount.image.as_ref().map(|volume| text(&volume.sub_path)).unwrap_or_default(),
        ..wire::Mount::default()
    }
}

/// A mount as a status tells it.
pub fn mount_of_status(mount: wire::Mount) -> Mount {
    let image = mount.image.as_ref().filter(|spec| !spec.image.is_empty()).map(|spec| ImageVolume {
        image: spec.image.clone(),
        user_image: spec.user_specified_image.clone(),
        sub_path: mount.image_sub_path.clone().into(),
        id: spec.image_ref.clone(),
    });
    let odd = Mount { container_path: mount.container_path.clone().into(), readonly: mount.readonly, ..Mount::default() };
    let plain = wire::Mount { image: None, image_sub_path: String::new(), ..mount };
    Mount { image, ..mount_from_wire(plain).unwrap_or(odd) }
}

fn id(name: &str, value: i64) -> Result<u32, CriError> {
    u32::try_from(value).map_err(|_| CriError::Invalid(format!("{name} is {value}")))
}

fn security_from_wire(said: Option<wire::LinuxContainerSecurityContext>) -> Result<SecurityContext, CriError> {
    let unmasked_proc = said.is_some();
    let security = said.unwrap_or_default();
    refuse_selinux(security.selinux_options.as_ref())?;
    #[allow(deprecated)]
    let (old_apparmor, old_seccomp) = (security.apparmor_profile.clone(), security.seccomp_profile_path.clone());
    let processes_of = security.namespace_options.as_ref().map_or(Ok(String::new()), target_from_wire)?;
    let groups: wire::SupplementalGroupsPolicy = known("supplemental_groups_policy", security.supplemental_groups_policy)?;
    if security.run_as_group.is_some() && security.run_as_user.is_none() && security.run_as_username.is_empty() {
        return Err(CriError::Invalid("run_as_group needs run_as_user or run_as_username".into()));
    }
    if security.run_as_user.is_some() && !security.run_as_username.is_empty() {
        return Err(CriError::Invalid("run_as_user and run_as_username exclude each other".into()));
    }
    let capabilities = security.capabilities.unwrap_or_default();
    Ok(SecurityContext {
        privileged: security.privileged,
        add_capabilities: capabilities.add_capabilities,
        drop_capabilities: capabilities.drop_capabilities,
        add_ambient_capabilities: capabilities.add_ambient_capabilities,
        run_as_user: security.run_as_user.map(|user| id("run_as_user", user.value)).transpose()?,
        run_as_group: security.run_as_group.map(|group| id("run_as_group", group.value)).transpose()?,
        run_as_username: security.run_as_username,
        supplemental_groups: security.supplemental_groups.into_iter().map(|g| id("a group", g)).collect::<Result<_, _>>()?,
        strict_groups: groups == wire::SupplementalGroupsPolicy::Strict,
        readonly_rootfs: security.readonly_rootfs,
        no_new_privs: security.no_new_privs,
        seccomp: match security.seccomp {
            Some(profile) => seccomp_from_wire(&profile)?,
            None => seccomp_of_path(&old_seccomp)?,
        },
        apparmor: match security.apparmor {
            Some(profile) => apparmor_from_wire(&profile)?,
            None => apparmor_of_name(&old_apparmor)?,
        },
        // A caller who speaks of security says which paths: nothing is added to that.
        unmasked_proc,
        masked_paths: security.masked_paths,
        readonly_paths: security.readonly_paths,
        run_as_non_root: false,
        processes_of,
        // Only with the pod's in view.
        own_processes: false,
    })
}

/// The container whose process namespace it is to be in, if it is another's.
fn target_from_wire(options: &wire::NamespaceOption) -> Result<String, CriError> {
    if options.pid() != wire::NamespaceMode::Target {
        return refuse_namespaces(options).map(|()| String::new());
    }
    refuse_namespaces(&wire::NamespaceOption { pid: wire::NamespaceMode::Container.into(), ..options.clone() })?;
    if options.target_id.is_empty() {
        return Err(CriError::Invalid("the process namespace of another container, and no target_id".into()));
    }
    Ok(options.target_id.clone())
}

fn seccomp_from_wire(profile: &wire::SecurityProfile) -> Result<Seccomp, CriError> {
    Ok(match known("profile_type", profile.profile_type)? {
        ProfileType::RuntimeDefault => Seccomp::RuntimeDefault,
        ProfileType::Unconfined => Seccomp::Unconfined,
        ProfileType::Localhost if Path::new(&profile.localhost_ref).is_absolute() => {
            Seccomp::Localhost(profile.localhost_ref.clone().into())
        }
        ProfileType::Localhost => {
            return Err(CriError::Invalid(format!("seccomp profile {:?} is not an absolute path", profile.localhost_ref)));
        }
    })
}

fn apparmor_from_wire(profile: &wire::SecurityProfile) -> Result<AppArmor, CriError> {
    Ok(match known("profile_type", profile.profile_type)? {
        ProfileType::RuntimeDefault => AppArmor::RuntimeDefault,
        ProfileType::Unconfined => AppArmor::Unconfined,
        ProfileType::Localhost => apparmor_of_name(&format!("localhost/{}", profile.localhost_ref.trim_start_matches("localhost/")))?,
    })
}

/// The older way to name an AppArmor profile.
fn apparmor_of_name(name: &str) -> Result<AppArmor, CriError> {
    match (name, name.strip_prefix("localhost/")) {
        ("" | "runtime/default", _) => Ok(AppArmor::RuntimeDefault),
        ("unconfined", _) => Ok(AppArmor::Unconfined),
        (_, Some(profile)) if !profile.is_empty() => Ok(AppArmor::Localhost(profile.to_owned())),
        _ => Err(CriError::Invalid(format!("{name:?} names no AppArmor profile"))),
    }
}

/// The older way to name a profile.
fn seccomp_of_path(path: &str) -> Result<Seccomp, CriError> {
    match path {
        "" | "unconfined" => Ok(Seccomp::Unconfined),
        "runtime/default" | "docker/default" => Ok(Seccomp::RuntimeDefault),
        other => match other.strip_prefix("localhost/") {
            Some(file) => Ok(Seccomp::Localhost(Path::new("/").join(file))),
            None => Err(CriError::Invalid(format!("{other:?} names no seccomp profile"))),
        },
    }
}

/// A configuration of ours in the wire's words, for a sandbox with these namespaces. The termination message's file is
/// the client's affair, as it is the kubelet's.
pub fn to_wire(config: &ContainerConfig, namespaces: wire::NamespaceOption) -> wire::ContainerConfig {
    let pair = |(key, value): &(String, String)| wire::KeyValue { key: key.clone(), value: value.clone() };
    let (image, annotations) = image_apart(&config.image, &config.annotations);
    wire::ContainerConfig {
        metadata: Some(metadata_to_wire(&config.metadata)),
        image: Some(image),
        command: config.command.clone(),
        args: config.args.clone(),
        working_dir: config.working_dir.clone(),
        envs: config.envs.iter().map(pair).collect(),
        mounts: config.mounts.iter().map(mount_to_wire).collect(),
        devices: config.devices.iter().map(device_to_wire).collect(),
        cdi_devices: config.cdi_devices.iter().map(|name| wire::CdiDevice { name: name.clone() }).collect(),
        labels: config.labels.clone(),
        annotations,
        log_path: config.log_path.to_string_lossy().into_owned(),
        stdin: config.stdin,
        stdin_once: config.stdin_once,
        tty: config.tty,
        linux: Some(wire::LinuxContainerConfig {
            resources: Some(resources_to_wire(&config.resources)),
            security_context: Some(security_to_wire(&config.security, namespaces)),
        }),
        stop_signal: signal::to_wire(&config.stop_signal),
    }
}

/// An image by name or id.
pub fn image_spec(image: &str) -> wire::ImageSpec {
    wire::ImageSpec { image: image.to_owned(), user_specified_image: image.to_owned(), ..wire::ImageSpec::default() }
}

/// An image with the name its user has for it, which is kept among the annotations, and those without it.
pub fn image_apart(image: &str, annotations: &BTreeMap<String, String>) -> (wire::ImageSpec, BTreeMap<String, String>) {
    let (mut spec, mut annotations) = (image_spec(image), annotations.clone());
    if let Some(name) = annotations.remove(USER_IMAGE) {
        spec.user_specified_image = name;
    }
    (spec, annotations)
}

pub fn metadata_to_wire(metadata: &ContainerMetadata) -> wire::ContainerMetadata {
    wire::ContainerMetadata { name: metadata.name.clone(), attempt: metadata.attempt }
}

pub fn metadata_from_wire(metadata: Option<wire::ContainerMetadata>) -> ContainerMetadata {
    let metadata = metadata.unwrap_or_default();
    ContainerMetadata { name: metadata.name, attempt: metadata.attempt }
}

fn security_to_wire(security: &SecurityContext, namespaces: wire::NamespaceOption) -> wire::LinuxContainerSecurityContext {
    let number = |value: Option<u32>| value.map(|value| wire::Int64Value { value: value.into() });
    let (mut masked, mut read_only) = if security.unmasked_proc { (Vec::new(), Vec::new()) } else { default_paths() };
    masked.extend(security.masked_paths.iter().cloned());
    read_only.extend(security.readonly_paths.iter().cloned());
    let (profile_type, localhost_ref) = match &security.seccomp {
        Seccomp::RuntimeDefault => (ProfileType::RuntimeDefault, String::new()),
        Seccomp::Unconfined => (ProfileType::Unconfined, String::new()),
        Seccomp::Localhost(path) => (ProfileType::Localhost, path.to_string_lossy().into_owned()),
    };
    let apparmor = match &security.apparmor {
        AppArmor::RuntimeDefault => (ProfileType::RuntimeDefault, String::new()),
        AppArmor::Unconfined => (ProfileType::Unconfined, String::new()),
        AppArmor::Localhost(name) => (ProfileType::Localhost, name.clone()),
    };
    // Nothing said is the default, also to runtimes on hosts without it.
    let apparmor = Some(apparmor).filter(|(profile, _)| *profile != ProfileType::RuntimeDefault);
    wire::LinuxContainerSecurityContext {
        apparmor: apparmor.map(|(profile, name)| wire::SecurityProfile { profile_type: profile.into(), localhost_ref: name }),
        capabilities: Some(wire::Capability {
            add_capabilities: security.add_capabilities.clone(),
            drop_capabilities: security.drop_capabilities.clone(),
            add_ambient_capabilities: security.add_ambient_capabilities.clone(),
        }),
        privileged: security.privileged,
        namespace_options: Some(match security.processes_of.as_str() {
            "" if security.own_processes => wire::NamespaceOption { pid: wire::NamespaceMode::Container.into(), ..namespaces },
            "" => namespaces,
            target => wire::NamespaceOption { pid: wire::NamespaceMode::Target.into(), target_id: target.to_owned(), ..namespaces },
        }),
        run_as_user: number(security.run_as_user),
        run_as_group: number(security.run_as_group.filter(|_| security.run_as_user.is_some() || !security.run_as_username.is_empty())),
        run_as_username: security.run_as_username.clone(),
        readonly_rootfs: security.readonly_rootfs,
        supplemental_groups: security.supplemental_groups.iter().map(|group| i64::from(*group)).collect(),
        supplemental_groups_policy: match security.strict_groups {
            true => wire::SupplementalGroupsPolicy::Strict.into(),
            false => wire::SupplementalGroupsPolicy::Merge.into(),
        },
        no_new_privs: security.no_new_privs,
        masked_paths: masked,
        readonly_paths: read_only,
        seccomp: Some(wire::SecurityProfile { profile_type: profile_type.into(), localhost_ref }),
        ..wire::LinuxContainerSecurityContext::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cri::types::{IdRange, Resources};
    use crate::cri::wire::NamespaceMode;

    fn config() -> ContainerConfig {
        ContainerConfig {
            metadata: ContainerMetadata { name: "web".into(), attempt: 3 },
            image: "busybox:1".into(),
            command: vec!["sh".into()],
            args: vec!["-c".into(), "true".into()],
            working_dir: "/srv".into(),
            envs: vec![("B".into(), "2".into()), ("A".into(), "1".into())],
            mounts: vec![
                Mount { container_path: "/m".into(), host_path: "/h".into(), propagation: "rslave".into(), ..Mount::default() },
                Mount {
                    container_path: "/n".into(),
                    host_path: "/i".into(),
                    readonly: true,
                    recursive_readonly: true,
                    ids: Some(IdRange { host: 65_536, length: 65_536 }),
                    ..Mount::default()
                },
                Mount {
                    container_path: "/o".into(),
                    readonly: true,
                    image: Some(ImageVolume { image: "data:1".into(), sub_path: "etc/app".into(), ..ImageVolume::default() }),
                    ..Mount::default()
                },
            ],
            devices: vec![Device { host_path: "/dev/a".into(), container_path: "/dev/b".into(), permissions: "rm".into() }],
            cdi_devices: vec!["vendor.example/card=0".into()],
            labels: [("a".to_owned(), "b".to_owned())].into(),
            annotations: [("c", "d"), (USER_IMAGE, "busybox")].map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            log_path: "web/3.log".into(),
            stdin: true,
            stdin_once: true,
            tty: true,
            resources: Resources { cpu_quota: 5000, cpu_period: 10_000, oom_score_adj: 7, ..Resources::default() },
            security: SecurityContext {
                add_capabilities: vec!["NET_ADMIN".into()],
                run_as_user: Some(7),
                run_as_group: Some(8),
                supplemental_groups: vec![9],
                strict_groups: true,
                no_new_privs: true,
                seccomp: Seccomp::Localhost("/p.json".into()),
                apparmor: AppArmor::Localhost("own".into()),
                unmasked_proc: true,
                masked_paths: vec!["/proc/kcore".into()],
                add_ambient_capabilities: vec!["NET_RAW".into()],
                processes_of: "other".into(),
                ..SecurityContext::default()
            },
            stop_signal: "SIGQUIT".into(),
            ..ContainerConfig::default()
        }
    }

    #[test]
    fn a_container_survives_the_way() {
        assert_eq!(from_wire(to_wire(&config(), wire::NamespaceOption::default())).unwrap(), config());
    }

    #[test]
    fn without_a_word_on_security_proc_is_masked() {
        let mut silent = to_wire(&config(), wire::NamespaceOption::default());
        silent.linux.as_mut().unwrap().security_context = None;
        assert!(!from_wire(silent.clone()).unwrap().security.unmasked_proc);
        silent.linux = None;
        assert!(!from_wire(silent).unwrap().security.unmasked_proc);
    }

    #[test]
    fn a_log_is_below_its_pods_directory() {
        for (path, is_below) in [("", true), ("web/3.log", true), ("./3.log", true), ("../3.log", false), ("/var/log/3.log", false)] {
            let wanted = wire::ContainerConfig { log_path: path.into(), ..to_wire(&config(), wire::NamespaceOption::default()) };
            assert_eq!(from_wire(wanted).is_ok(), is_below, "{path}");
        }
    }

    #[test]
    fn apparmor_profiles_have_old_and_new_names() {
        let names =
            [("", AppArmor::RuntimeDefault), ("unconfined", AppArmor::Unconfined), ("localhost/a", AppArmor::Localhost("a".into()))];
        for (name, profile) in names {
            assert_eq!(apparmor_of_name(name).unwrap(), profile);
        }
        assert!(apparmor_of_name("localhost/").is_err() && apparmor_of_name("other").is_err());
    }

    #[test]
    fn default_paths_are_spelled_out() {
        let mut plain = config();
        plain.security.unmasked_proc = false;
        let security = to_wire(&plain, wire::NamespaceOption::default()).linux.unwrap().security_context.unwrap();
        assert!(
            security.masked_paths.contains(&"/proc/timer_list".to_owned()) && security.readonly_paths.contains(&"/proc/sys".to_owned())
        );
    }

    #[test]
    fn an_image_is_a_volume_to_read_from() {
        let refused = |change: fn(&mut wire::Mount)| {
            let mut wanted = to_wire(&config(), wire::NamespaceOption::default());
            change(&mut wanted.mounts[2]);
            matches!(from_wire(wanted), Err(CriError::Invalid(_)))
        };
        assert!(!refused(|_| {}));
        assert!(refused(|mount| mount.readonly = false));
        assert!(refused(|mount| mount.host_path = "/etc".into()));
        assert!(refused(|mount| mount.propagation = wire::MountPropagation::PropagationBidirectional.into()));
        assert!(refused(|mount| mount.image_sub_path = "../etc".into()));
        assert!(refused(|mount| mount.image_sub_path = "/etc".into()));
        assert!(refused(|mount| mount.image = None));
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_name() {
        type Change = fn(&mut wire::ContainerConfig);
        fn security(config: &mut wire::ContainerConfig) -> &mut wire::LinuxContainerSecurityContext {
            config.linux.as_mut().unwrap().security_context.as_mut().unwrap()
        }
        let cases: [(&str, Change); 1] = [("network namespace", |config| {
            security(config).namespace_options.as_mut().unwrap().network = NamespaceMode::Target.into();
        })];
        for (word, change) in cases {
            let mut wanted = to_wire(&config(), wire::NamespaceOption::default());
            change(&mut wanted);
            let refused = from_wire(wanted);
            assert!(matches!(&refused, Err(CriError::Unsupported(text)) if text.contains(word)), "{word}: {refused:?}");
        }
        let mut halfway = to_wire(&config(), wire::NamespaceOption::default());
        halfway.mounts[0].recursive_read_only = true;
        assert!(matches!(from_wire(halfway), Err(CriError::Invalid(_))));
        for permissions in ["", "x", "rwx", "RW"] {
            let mut odd = to_wire(&config(), wire::NamespaceOption::default());
            odd.devices[0].permissions = permissions.into();
            assert!(matches!(from_wire(odd), Err(CriError::Invalid(_))), "{permissions:?}");
        }
        let mut aimless = to_wire(&config(), wire::NamespaceOption::default());
        security(&mut aimless).namespace_options.as_mut().unwrap().target_id.clear();
        assert!(matches!(from_wire(aimless), Err(CriError::Invalid(_))));
        let mut groupless = to_wire(&config(), wire::NamespaceOption::default());
        security(&mut groupless).run_as_user = None;
        assert!(matches!(from_wire(groupless), Err(CriError::Invalid(_))));
    }
}
