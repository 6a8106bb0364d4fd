//! What is said of a word that is no verb. PURE.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Verbs of kubectl that change objects or need more than a kubeconfig: Podbay leaves them to kubectl.
const OF_KUBECTL: [&str; 25] = [
    "annotate",
    "api-resources",
    "apply",
    "auth",
    "autoscale",
    "cordon",
    "cp",
    "create",
    "debug",
    "delete",
    "diff",
    "drain",
    "edit",
    "expose",
    "label",
    "patch",
    "port-forward",
    "replace",
    "rollout",
    "run",
    "scale",
    "set",
    "taint",
    "top",
    "wait",
];

/// The verb that removes everything: never what somebody might have meant.
const NEVER_A_TIP: &str = "reset";

/// The error of a command line as it is told.
pub fn told(mut error: clap::Error) -> clap::Error {
    if error.kind() != ErrorKind::InvalidSubcommand {
        return error;
    }
    let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidSubcommand).cloned() else { return error };
    let similar = match error.remove(ContextKind::SuggestedSubcommand) {
        Some(ContextValue::Strings(all)) => all,
        Some(ContextValue::String(one)) => vec![one],
        _ => Vec::new(),
    };
    if OF_KUBECTL.contains(&word.as_str()) {
        let tip = match word.as_str() {
            "cordon" | "drain" => format!("say `podbay node {word} NAME`"),
            _ => format!("use kubectl: `kubectl {word}` works with Podbay's kubeconfig"),
        };
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
        return error;
    }
    let similar: Vec<String> = similar.into_iter().filter(|verb| verb != NEVER_A_TIP).collect();
    if similar.is_empty() {
        error.remove(ContextKind::Suggested);
    } else {
        error.insert(ContextKind::SuggestedSubcommand, ContextValue::Strings(similar));
    }
    error
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::args::Cli;

    #[test]
    fn a_word_that_is_no_verb_is_answered_with_what_does_no_harm() {
        let rows = [
            ("delete", "use kubectl: `kubectl delete` works"),
            ("scale", "use kubectl: `kubectl scale` works"),
            ("drain", "podbay node drain NAME"),
            ("statu", "'status'"),
            ("rest", "unrecognized subcommand"),
            ("remove", "unrecognized subcommand"),
            ("restart", "unrecognized subcommand"),
        ];
        for (word, said) in rows {
            let error = Cli::try_parse_from(["podbay", word, "x"]).unwrap_err();
            let text = told(error).to_string();
            assert!(text.contains(said) && !text.contains("reset"), "{word}: {text}");
        }
    }
}
