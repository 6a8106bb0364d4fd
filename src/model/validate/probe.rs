//! Probes and lifecycle hooks. PURE.

use k8s_openapi::api::core::v1::{ExecAction, HTTPGetAction, Lifecycle, LifecycleHandler, Probe, TCPSocketAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::container::port_number;
use super::{names, not_negative, one_of};
use crate::model::rule::{Errors, Path};

const ONE_HANDLER: &str = "may not specify more than 1 handler type";

/// Every signal of Linux by its name, in the order of their letters.
const STOP_SIGNALS: [&str; 65] = [
    "SIGABRT",
    "SIGALRM",
    "SIGBUS",
    "SIGCHLD",
    "SIGCLD",
    "SIGCONT",
    "SIGFPE",
    "SIGHUP",
    "SIGILL",
    "SIGINT",
    "SIGIO",
    "SIGIOT",
    "SIGKILL",
    "SIGPIPE",
    "SIGPOLL",
    "SIGPROF",
    "SIGPWR",
    "SIGQUIT",
    "SIGRTMAX",
    "SIGRTMAX-1",
    "SIGRTMAX-10",
    "SIGRTMAX-11",
    "SIGRTMAX-12",
    "SIGRTMAX-13",
    "SIGRTMAX-14",
    "SIGRTMAX-2",
    "SIGRTMAX-3",
    "SIGRTMAX-4",
    "SIGRTMAX-5",
    "SIGRTMAX-6",
    "SIGRTMAX-7",
    "SIGRTMAX-8",
    "SIGRTMAX-9",
    "SIGRTMIN",
    "SIGRTMIN+1",
    "SIGRTMIN+10",
    "SIGRTMIN+11",
    "SIGRTMIN+12",
    "SIGRTMIN+13",
    "SIGRTMIN+14",
    "SIGRTMIN+15",
    "SIGRTMIN+2",
    "SIGRTMIN+3",
    "SIGRTMIN+4",
    "SIGRTMIN+5",
    "SIGRTMIN+6",
    "SIGRTMIN+7",
    "SIGRTMIN+8",
    "SIGRTMIN+9",
    "SIGSEGV",
    "SIGSTKFLT",
    "SIGSTOP",
    "SIGSYS",
    "SIGTERM",
    "SIGTRAP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGUSR1",
    "SIGUSR2",
    "SIGVTALRM",
    "SIGWINCH",
    "SIGXCPU",
    "SIGXFSZ",
];

/// A liveness or startup probe.
pub(super) fn liveness(probe: Option<&Probe>, path: &Path<'_>, errors: &mut Errors) {
    let Some(it) = probe else { return };
    self::probe(it, path, errors);
    if let Some(threshold) = it.success_threshold.filter(|it| *it != 1) {
        errors.invalid(&path.child("successThreshold"), &threshold, "must be 1");
    }
    if let Some(seconds) = it.termination_grace_period_seconds.filter(|it| *it <= 0) {
        errors.invalid(&path.child("terminationGracePeriodSeconds"), &seconds, "must be greater than 0");
    }
}

pub(super) fn readiness(probe: Option<&Probe>, path: &Path<'_>, errors: &mut Errors) {
    let Some(it) = probe else { return };
    self::probe(it, path, errors);
    if let Some(seconds) = it.termination_grace_period_seconds {
        errors.invalid(&path.child("terminationGracePeriodSeconds"), &seconds, "must not be set for readinessProbes");
    }
}

fn probe(it: &Probe, path: &Path<'_>, errors: &mut Errors) {
    let mut count = Count::default();
    count.common((it.exec.as_ref(), it.http_get.as_ref(), it.tcp_socket.as_ref()), path, errors);
    if let Some(grpc) = &it.grpc {
        let at = path.child("grpc");
        if count.is_first(&at, errors) {
            port_number(grpc.port, &at.child("port"), errors);
            one_of(grpc.mode.as_deref(), &["Plaintext", "TLS"], &at.child("mode"), errors);
        }
    }
    if count.0 == 0 {
        errors.required(path, "must specify a handler type");
    }
    for (field, value) in [
        ("initialDelaySeconds", it.initial_delay_seconds),
        ("timeoutSeconds", it.timeout_seconds),
        ("periodSeconds", it.period_seconds),
        ("successThreshold", it.success_threshold),
        ("failureThreshold", it.failure_threshold),
    ] {
        not_negative(value, &path.child(field), errors);
    }
}

/// `os`: what the pod says its system is.
pub(super) fn lifecycle(lifecycle: Option<&Lifecycle>, grace: i64, os: Option<&str>, path: &Path<'_>, errors: &mut Errors) {
    let Some(it) = lifecycle else { return };
    if let Some(signal) = &it.stop_signal {
        let at = path.child("stopSignal");
        if os.is_none_or(str::is_empty) {
            errors.forbidden(&at, "may not be set for containers with empty `spec.os.name`");
        } else {
            one_of(Some(signal), &STOP_SIGNALS, &at, errors);
        }
    }
    for (field, handler) in [("postStart", &it.post_start), ("preStop", &it.pre_stop)] {
        if let Some(handler) = handler {
            hook(handler, grace, &path.child(field), errors);
        }
    }
}

fn hook(it: &LifecycleHandler, grace: i64, path: &Path<'_>, errors: &mut Errors) {
    let mut count = Count::default();
    count.common((it.exec.as_ref(), it.http_get.as_ref(), it.tcp_socket.as_ref()), path, errors);
    if let Some(sleep) = &it.sleep {
        let at = path.child("sleep");
        if count.is_first(&at, errors) && !(0..=grace).contains(&sleep.seconds) {
            let detail = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
            errors.invalid(&at, &sleep.seconds, &detail);
        }
    }
    if count.0 == 0 {
        errors.required(path, "must specify a handler type");
    }
}

/// Handlers seen so far: there may be one.
#[derive(Default)]
struct Count(usize);

type Common<'a> = (Option<&'a ExecAction>, Option<&'a HTTPGetAction>, Option<&'a TCPSocketAction>);

impl Count {
    fn is_first(&mut self, path: &Path<'_>, errors: &mut Errors) -> bool {
        self.0 += 1;
        if self.0 > 1 {
            errors.forbidden(path, ONE_HANDLER);
        }
        self.0 == 1
    }

    /// The handlers that probes and hooks share.
    fn common(&mut self, (exec, get, tcp): Common<'_>, path: &Path<'_>, errors: &mut Errors) {
        if let Some(exec) = exec {
            self.exec(exec, &path.child("exec"), errors);
        }
        if let Some(get) = get {
            self.http_get(get, &path.child("httpGet"), errors);
        }
        if let Some(tcp) = tcp {
            let at = path.child("tcpSocket");
            if self.is_first(&at, errors) {
                port(&tcp.port, &at.child("port"), errors);
            }
        }
    }

    fn exec(&mut self, it: &ExecAction, path: &Path<'_>, errors: &mut Errors) {
        if self.is_first(path, errors) && it.command.as_ref().is_none_or(Vec::is_empty) {
            errors.required(&path.child("command"), "");
        }
    }

    fn http_get(&mut self, it: &HTTPGetAction, path: &Path<'_>, errors: &mut Errors) {
        if !self.is_first(path, errors) {
            return;
        }
        if it.path.as_deref().is_none_or(str::is_empty) {
            errors.required(&path.child("path"), "");
        }
        port(&it.port, &path.child("port"), errors);
        one_of(it.scheme.as_deref(), &["HTTP", "HTTPS"], &path.child("scheme"), errors);
        let headers = path.child("httpHeaders");
        for (index, header) in it.http_headers.iter().flatten().enumerate() {
            errors.all(&headers.index(index).child("name"), &header.name, names::http_header(&header.name));
        }
    }
}

fn port(port: &IntOrString, path: &Path<'_>, errors: &mut Errors) {
    match port {
        IntOrString::Int(number) => port_number(*number, path, errors),
        IntOrString::String(name) => errors.all(path, name, names::port_name(name)),
    }
}
