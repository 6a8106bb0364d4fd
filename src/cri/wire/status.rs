//! What is there, from the wire and onto it. PURE.

use super as wire;
use super::container::{image_apart, metadata_from_wire, metadata_to_wire, mount_of_status, mount_to_wire};
use super::sandbox::{self, namespaces_from_wire, namespaces_to_wire, resources_from_wire, resources_to_wire};
use super::signal;
use crate::cri::types::{
    ContainerState, ContainerStats, ContainerStatus, ContainerUser, FilesystemUsage, Image, InterfaceStats, PodSandbox, PodSandboxStats,
    Pressure, SandboxState, Stall, Usage,
};
use crate::model::Timestamp;

/// Nanoseconds since 1970; 0: never.
pub fn nanoseconds(time: Option<Timestamp>) -> i64 {
    time.and_then(|time| i64::try_from(time.as_nanosecond()).ok()).unwrap_or(0)
}

fn time(nanoseconds: i64) -> Option<Timestamp> {
    Timestamp::from_nanosecond(i128::from(nanoseconds)).ok().filter(|_| nanoseconds > 0)
}

fn number(value: u64) -> Option<wire::UInt64Value> {
    Some(wire::UInt64Value { value })
}

fn value(number: Option<wire::UInt64Value>) -> u64 {
    number.map_or(0, |number| number.value)
}

pub fn sandbox_state(state: SandboxState) -> wire::PodSandboxState {
    match state {
        SandboxState::Ready => wire::PodSandboxState::SandboxReady,
        SandboxState::NotReady => wire::PodSandboxState::SandboxNotready,
    }
}

pub fn container_state(state: ContainerState) -> wire::ContainerState {
    match state {
        ContainerState::Created => wire::ContainerState::ContainerCreated,
        ContainerState::Running => wire::ContainerState::ContainerRunning,
        ContainerState::Exited => wire::ContainerState::ContainerExited,
        ContainerState::Unknown => wire::ContainerState::ContainerUnknown,
    }
}

/// A sandbox as lists tell it.
pub fn sandbox_item(sandbox: &PodSandbox) -> wire::PodSandbox {
    wire::PodSandbox {
        id: sandbox.id.clone(),
        metadata: Some(sandbox::metadata_to_wire(&sandbox.metadata)),
        state: sandbox_state(sandbox.state).into(),
        created_at: nanoseconds(Some(sandbox.created_at)),
        labels: sandbox.labels.clone(),
        annotations: sandbox.annotations.clone(),
        runtime_handler: sandbox.runtime_handler.clone(),
    }
}

pub fn sandbox_status(sandbox: &PodSandbox) -> wire::PodSandboxStatus {
    let mut ips = sandbox.ips.iter().cloned();
    wire::PodSandboxStatus {
        id: sandbox.id.clone(),
        metadata: Some(sandbox::metadata_to_wire(&sandbox.metadata)),
        state: sandbox_state(sandbox.state).into(),
        created_at: nanoseconds(Some(sandbox.created_at)),
        network: Some(wire::PodSandboxNetworkStatus {
            ip: ips.next().unwrap_or_default(),
            additional_ips: ips.map(|ip| wire::PodIp { ip }).collect(),
        }),
        linux: Some(wire::LinuxPodSandboxStatus {
            namespaces: Some(wire::Namespace { options: Some(namespaces_to_wire(sandbox.namespaces)) }),
        }),
        labels: sandbox.labels.clone(),
        annotations: sandbox.annotations.clone(),
        runtime_handler: sandbox.runtime_handler.clone(),
    }
}

pub fn sandbox_from_wire(status: wire::PodSandboxStatus) -> PodSandbox {
    let state = match status.state() {
        wire::PodSandboxState::SandboxReady => SandboxState::Ready,
        wire::PodSandboxState::SandboxNotready => SandboxState::NotReady,
    };
    let network = status.network.unwrap_or_default();
    let options = status.linux.and_then(|linux| linux.namespaces).and_then(|namespaces| namespaces.options);
    let ips = [network.ip].into_iter().chain(network.additional_ips.into_iter().map(|ip| ip.ip));
    PodSandbox {
        id: status.id,
        metadata: sandbox::metadata_from_wire(status.metadata),
        state,
        created_at: time(status.created_at).unwrap_or(Timestamp::UNIX_EPOCH),
        // A stopped sandbox has given its address back, whatever is remembered of it.
        ips: if state == SandboxState::Ready { ips.filter(|ip| !ip.is_empty()).collect() } else { Vec::new() },
        labels: status.labels,
        annotations: status.annotations,
        namespaces: namespaces_from_wire(&options.unwrap_or_default()),
        runtime_handler: status.runtime_handler,
    }
}

/// A container as lists tell it.
pub fn container_item(container: &ContainerStatus) -> wire::Container {
    let (image, annotations) = image_apart(&container.image, &container.annotations);
    wire::Container {
        id: container.id.clone(),
        pod_sandbox_id: container.sandbox_id.clone(),
        metadata: Some(metadata_to_wire(&container.metadata)),
        image: Some(image),
        // As with containerd; callers from before there was an `image_id` look for it among the images' ids.
        image_ref: container.image_id.clone(),
        state: container_state(container.state).into(),
        created_at: nanoseconds(Some(container.created_at)),
        labels: container.labels.clone(),
        annotations,
        image_id: container.image_id.clone(),
    }
}

pub fn container_status(container: &ContainerStatus) -> wire::ContainerStatus {
    let (mut image, annotations) = image_apart(&container.image, &container.annotations);
    // A kubelet asks for it by its id, and shows its users this name.
    image.image.clone_from(&image.user_specified_image);
    wire::ContainerStatus {
        id: container.id.clone(),
        metadata: Some(metadata_to_wire(&container.metadata)),
        state: container_state(container.state).into(),
        created_at: nanoseconds(Some(container.created_at)),
        started_at: nanoseconds(container.started_at),
        finished_at: nanoseconds(container.finished_at),
        exit_code: container.exit_code,
        image: Some(image),
        image_ref: container.image_ref.clone(),
        reason: container.reason.clone(),
        message: container.message.clone(),
        labels: container.labels.clone(),
        annotations,
        mounts: container.mounts.iter().map(mount_to_wire).collect(),
        log_path: container.log_path.to_string_lossy().into_owned(),
        resources: Some(wire::ContainerResources { linux: Some(resources_to_wire(&container.resources)) }),
        image_id: container.image_id.clone(),
        user: container.user.as_ref().map(|user| wire::ContainerUser {
            linux: Some(wire::LinuxContainerUser {
                uid: user.uid.into(),
                gid: user.gid.into(),
                supplemental_groups: user.groups.iter().map(|group| i64::from(*group)).collect(),
            }),
        }),
        stop_signal: signal::to_wire(&container.stop_signal),
    }
}

/// `sandbox_id`: the wire's status does not say it.
pub fn container_from_wire(status: wire::ContainerStatus, sandbox_id: &str) -> ContainerStatus {
    let state = match status.state() {
        wire::ContainerState::ContainerCreated => ContainerState::Created,
        wire::ContainerState::ContainerRunning => ContainerState::Running,
        wire::ContainerState::ContainerExited => ContainerState::Exited,
        wire::ContainerState::ContainerUnknown => ContainerState::Unknown,
    };
    let image_id = if status.image_id.is_empty() { status.image_ref.clone() } else { status.image_id };
    let id = |id: i64| u32::try_from(id).unwrap_or_default();
    let user = status.user.and_then(|user| user.linux).map(|user| ContainerUser {
        uid: id(user.uid),
        gid: id(user.gid),
        groups: user.supplemental_groups.into_iter().map(id).collect(),
    });
    let image = status.image.unwrap_or_default();
    let resources = status.resources.and_then(|resources| resources.linux).map(|linux| wire::LinuxContainerResources {
        // Of what was asked for; other runtimes tell more than we can say.
        cpuset_cpus: String::new(),
        cpuset_mems: String::new(),
        hugepage_limits: Vec::new(),
        unified: std::collections::BTreeMap::new(),
        memory_swap_limit_in_bytes: 0,
        ..linux
    });
    ContainerStatus {
        id: status.id,
        sandbox_id: sandbox_id.to_owned(),
        metadata: metadata_from_wire(status.metadata),
        state,
        created_at: time(status.created_at).unwrap_or(Timestamp::UNIX_EPOCH),
        started_at: time(status.started_at),
        // Some runtimes take the time of the end before that of the start.
        finished_at: time(status.finished_at).max(time(status.started_at).filter(|_| status.finished_at > 0)),
        exit_code: status.exit_code,
        reason: status.reason,
        message: status.message,
        image: if image.user_specified_image.is_empty() { image.image } else { image.user_specified_image },
        image_id,
        image_ref: status.image_ref,
        labels: status.labels,
        annotations: status.annotations,
        log_path: status.log_path.into(),
        mounts: status.mounts.into_iter().map(mount_of_status).collect(),
        resources: resources_from_wire(resources).unwrap_or_default(),
        user,
        stop_signal: signal::from_wire(status.stop_signal),
    }
}

/// Figures at a time; `container`: whom they are of.
pub fn container_stats(stats: &ContainerStats, container: &ContainerStatus, now: Timestamp) -> wire::ContainerStats {
    let limit = container.resources.memory_limit_bytes;
    let available = (limit > 0).then(|| limit.saturating_sub(stats.usage.memory_working_set_bytes));
    let timestamp = nanoseconds(Some(now));
    wire::ContainerStats {
        attributes: Some(wire::ContainerAttributes {
            id: container.id.clone(),
            metadata: Some(metadata_to_wire(&container.metadata)),
            labels: container.labels.clone(),
            annotations: image_apart(&container.image, &container.annotations).1,
        }),
        cpu: Some(cpu(timestamp, &stats.usage)),
        memory: Some(wire::MemoryUsage { available_bytes: available.and_then(number), ..memory(timestamp, &stats.usage) }),
        writable_layer: stats.writable_layer.as_ref().map(|layer| filesystem(layer, now)),
        swap: stats.usage.swap_bytes.map(|used| swap(timestamp, used, container)),
        io: io(timestamp, &stats.usage),
    }
}

fn cpu(timestamp: i64, usage: &Usage) -> wire::CpuUsage {
    let psi = usage.cpu_pressure.map(pressure);
    wire::CpuUsage { timestamp, usage_core_nano_seconds: number(usage.cpu_nanos), psi, ..wire::CpuUsage::default() }
}

/// How much is left is known only of who may not have any amount.
fn swap(timestamp: i64, used: u64, container: &ContainerStatus) -> wire::SwapUsage {
    let resources = &container.resources;
    let both = u64::try_from(resources.memory_swap_limit_bytes).ok().filter(|_| resources.memory_limit_bytes > 0);
    let available = both.map(|both| both.saturating_sub(resources.memory_limit_bytes).saturating_sub(used));
    wire::SwapUsage { timestamp, swap_available_bytes: available.and_then(number), swap_usage_bytes: number(used) }
}

fn io(timestamp: i64, usage: &Usage) -> Option<wire::IoUsage> {
    usage.io_pressure.map(|io| wire::IoUsage { timestamp, psi: Some(pressure(io)) })
}

fn pressure(pressure: Pressure) -> wire::PsiStats {
    let percent = |hundredths: u32| f64::from(hundredths) / 100.0;
    let data = |stall: Stall| wire::PsiData {
        total: stall.total_nanos,
        avg10: percent(stall.average_10),
        avg60: percent(stall.average_60),
        avg300: percent(stall.average_300),
    };
    wire::PsiStats { full: Some(data(pressure.full)), some: Some(data(pressure.some)) }
}

fn memory(timestamp: i64, usage: &Usage) -> wire::MemoryUsage {
    wire::MemoryUsage {
        timestamp,
        working_set_bytes: number(usage.memory_working_set_bytes),
        usage_bytes: number(usage.memory_usage_bytes),
        rss_bytes: number(usage.memory_rss_bytes),
        page_faults: number(usage.page_faults),
        major_page_faults: number(usage.major_page_faults),
        psi: usage.memory_pressure.map(pressure),
        ..wire::MemoryUsage::default()
    }
}

fn usage_from_wire(cpu: Option<wire::CpuUsage>, memory: Option<wire::MemoryUsage>, process: Option<wire::ProcessUsage>) -> Usage {
    let memory = memory.unwrap_or_default();
    Usage {
        cpu_nanos: value(cpu.and_then(|cpu| cpu.usage_core_nano_seconds)),
        memory_working_set_bytes: value(memory.working_set_bytes),
        memory_usage_bytes: value(memory.usage_bytes),
        memory_rss_bytes: value(memory.rss_bytes),
        page_faults: value(memory.page_faults),
        major_page_faults: value(memory.major_page_faults),
        pids: value(process.and_then(|process| process.process_count)),
        // What nobody here asks another runtime for.
        ..Usage::default()
    }
}

/// `sandbox_id`: not among the wire's figures.
pub fn container_stats_from_wire(stats: wire::ContainerStats, sandbox_id: &str) -> ContainerStats {
    let attributes = stats.attributes.unwrap_or_default();
    ContainerStats {
        id: attributes.id,
        sandbox_id: sandbox_id.to_owned(),
        name: metadata_from_wire(attributes.metadata).name,
        // The wire counts the processes of pods only.
        usage: Usage {
            swap_bytes: stats.swap.and_then(|swap| swap.swap_usage_bytes).map(|bytes| bytes.value),
            ..usage_from_wire(stats.cpu, stats.memory, None)
        },
        writable_layer: stats.writable_layer.map(filesystem_from_wire),
    }
}

/// A pod's figures with those of its containers.
pub fn sandbox_stats(
    stats: &PodSandboxStats,
    sandbox: &PodSandbox,
    containers: Vec<wire::ContainerStats>,
    now: Timestamp,
) -> wire::PodSandboxStats {
    let timestamp = nanoseconds(Some(now));
    let interface = |interface: &InterfaceStats| wire::NetworkInterfaceUsage {
        name: interface.name.clone(),
        rx_bytes: number(interface.rx_bytes),
        rx_errors: number(interface.rx_errors),
        tx_bytes: number(interface.tx_bytes),
        tx_errors: number(interface.tx_errors),
    };
    let mut interfaces: Vec<_> = stats.network.iter().map(interface).collect();
    let default_at = interfaces.iter().position(|interface| interface.name == "eth0");
    let network = wire::NetworkUsage { timestamp, default_interface: default_at.map(|at| interfaces.remove(at)), interfaces };
    wire::PodSandboxStats {
        attributes: Some(wire::PodSandboxAttributes {
            id: sandbox.id.clone(),
            metadata: Some(sandbox::metadata_to_wire(&sandbox.metadata)),
            labels: sandbox.labels.clone(),
            annotations: sandbox.annotations.clone(),
        }),
        linux: Some(wire::LinuxPodSandboxStats {
            cpu: Some(cpu(timestamp, &stats.usage)),
            memory: Some(memory(timestamp, &stats.usage)),
            network: (!stats.network.is_empty()).then_some(network),
            process: Some(wire::ProcessUsage { timestamp, process_count: number(stats.usage.pids) }),
            containers,
            io: io(timestamp, &stats.usage),
        }),
    }
}

pub fn sandbox_stats_from_wire(stats: wire::PodSandboxStats) -> PodSandboxStats {
    let linux = stats.linux.unwrap_or_default();
    let network = linux.network.unwrap_or_default();
    let interface = |usage: wire::NetworkInterfaceUsage| InterfaceStats {
        name: usage.name,
        rx_bytes: value(usage.rx_bytes),
        rx_errors: value(usage.rx_errors),
        tx_bytes: value(usage.tx_bytes),
        tx_errors: value(usage.tx_errors),
    };
    PodSandboxStats {
        id: stats.attributes.unwrap_or_default().id,
        usage: usage_from_wire(linux.cpu, linux.memory, linux.process),
        network: network.default_interface.into_iter().chain(network.interfaces).map(interface).collect(),
    }
}

pub fn image(image: &Image) -> wire::Image {
    let user = image.user.split(':').next().unwrap_or_default();
    let uid = user.parse::<i64>().ok();
    wire::Image {
        id: image.id.clone(),
        repo_tags: image.tags.clone(),
        repo_digests: image.digests.clone(),
        // Never 0, not even of an image without a byte.
        size: image.size_bytes.max(1),
        uid: uid.map(|value| wire::Int64Value { value }),
        username: if uid.is_some() { String::new() } else { user.to_owned() },
        spec: None,
        pinned: image.pinned,
    }
}

pub fn image_from_wire(image: wire::Image) -> Image {
    let user = image.uid.map_or(image.username, |uid| uid.value.to_string());
    Image { id: image.id, tags: image.repo_tags, digests: image.repo_digests, size_bytes: image.size, user, pinned: image.pinned }
}

pub fn filesystem(usage: &FilesystemUsage, now: Timestamp) -> wire::FilesystemUsage {
    wire::FilesystemUsage {
        timestamp: nanoseconds(Some(now)),
        fs_id: Some(wire::FilesystemIdentifier { mountpoint: usage.mount_point.to_string_lossy().into_owned() }),
        used_bytes: number(usage.used_bytes),
        inodes_used: (usage.inodes_used > 0).then_some(usage.inodes_used).and_then(number),
    }
}

pub fn filesystem_from_wire(usage: wire::FilesystemUsage) -> FilesystemUsage {
    FilesystemUsage {
        mount_point: usage.fs_id.unwrap_or_default().mountpoint.into(),
        used_bytes: value(usage.used_bytes),
        inodes_used: value(usage.inodes_used),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container() -> ContainerStatus {
        container_from_wire(wire::ContainerStatus { id: "c".into(), ..wire::ContainerStatus::default() }, "s")
    }

    #[test]
    fn figures_survive_the_way() {
        let usage = Usage { cpu_nanos: 1, memory_usage_bytes: 2, memory_working_set_bytes: 3, swap_bytes: Some(4), ..Usage::default() };
        let layer = FilesystemUsage { mount_point: "/d".into(), used_bytes: 5, inodes_used: 6 };
        let stats =
            ContainerStats { id: "c".into(), sandbox_id: "s".into(), usage, writable_layer: Some(layer), ..ContainerStats::default() };
        let there = container_stats(&stats, &container(), Timestamp::UNIX_EPOCH);
        assert_eq!(container_stats_from_wire(there, "s"), stats);
        let unknown = container_stats(&ContainerStats::default(), &container(), Timestamp::UNIX_EPOCH);
        assert_eq!((unknown.swap, unknown.writable_layer, unknown.io), (None, None, None));
    }

    #[test]
    fn an_images_user_is_a_number_or_a_name() {
        for (user, uid, name) in [("1002", Some(1002), ""), ("app", None, "app"), ("1003:50", Some(1003), ""), ("app:users", None, "app")] {
            let known = Image { id: "i".into(), tags: Vec::new(), digests: Vec::new(), size_bytes: 0, user: user.into(), pinned: false };
            let told = image(&known);
            assert_eq!((told.uid.map(|uid| uid.value), told.username.as_str(), told.size), (uid, name, 1), "{user}");
        }
    }

    #[test]
    fn swap_is_left_to_who_has_a_limit() {
        let left = |memory_limit_bytes, memory_swap_limit_bytes| {
            let mut container = container();
            (container.resources.memory_limit_bytes, container.resources.memory_swap_limit_bytes) =
                (memory_limit_bytes, memory_swap_limit_bytes);
            swap(0, 10, &container).swap_available_bytes.map(|bytes| bytes.value)
        };
        assert_eq!([left(100, 150), left(100, 100), left(100, 0), left(100, -1), left(0, 0)], [Some(40), Some(0), Some(0), None, None]);
    }

    #[test]
    fn pressure_is_told_in_percent() {
        let stall = Stall { total_nanos: 7, average_10: 125, average_60: 10_000, average_300: 0 };
        let usage = Usage { io_pressure: Some(Pressure { some: stall, full: Stall::default() }), ..Usage::default() };
        let some = io(1, &usage).and_then(|io| io.psi?.some).unwrap();
        assert_eq!((some.total, some.avg10, some.avg60, some.avg300), (7, 1.25, 100.0, 0.0));
    }
}
