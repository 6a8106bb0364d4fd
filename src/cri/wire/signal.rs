//! The wire's signals, which have numbers of their own. PURE.

use super::Signal;
use crate::runtime::signal::number;

fn name(signal: Signal) -> String {
    signal.as_str_name().replace("PLUS", "+").replace("MINUS", "-")
}

/// `SIGTERM`, `SIGRTMIN+3`; empty: the runtime's default.
pub fn from_wire(signal: i32) -> String {
    Signal::try_from(signal).ok().filter(|signal| *signal != Signal::RuntimeDefault).map(name).unwrap_or_default()
}

/// The wire's number of a signal by name or by the kernel's number; an unknown one is the default.
pub fn to_wire(text: &str) -> i32 {
    let Some(wanted) = number(text) else { return 0 };
    let all = (1..=65).filter_map(|code| Signal::try_from(code).ok());
    all.into_iter().find(|signal| number(&name(*signal)) == Some(wanted)).map_or(0, i32::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signal_survives_the_way() {
        for code in 1..=65 {
            let name = from_wire(code);
            // Those with two names come back by the other one.
            assert!(number(&name).is_none() || number(&from_wire(to_wire(&name))) == number(&name), "{name}");
        }
        assert_eq!((from_wire(18).as_str(), to_wire("QUIT"), to_wire("3")), ("SIGQUIT", 18, 18));
        assert_eq!((from_wire(38).as_str(), to_wire("SIGRTMIN+3")), ("SIGRTMIN+3", 38));
        assert_eq!((from_wire(0).as_str(), to_wire(""), to_wire("nonsense")), ("", 0, 0));
    }
}
