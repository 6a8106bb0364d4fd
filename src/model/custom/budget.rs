//! What a look at an object may cost. PURE.
//!
//! Objects, their schemas and the rules of these come from anybody, and are looked at where everybody waits:
//! whatever looks or copies pays before it does so.

use serde_json::Value;
use thiserror::Error;

/// Bytes that are looked at or copied in one step.
const BYTES_A_STEP: usize = 64;

/// Steps that may be taken and bytes that may be made.
#[derive(Debug)]
pub struct Budget {
    steps: usize,
    bytes: usize,
    is_spent: bool,
}

/// There was too much to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("it takes too long, or too much memory, on this object")]
pub struct Spent;

impl From<Spent> for String {
    fn from(spent: Spent) -> Self {
        spent.to_string()
    }
}

impl Budget {
    pub const fn new(steps: usize, bytes: usize) -> Self {
        Self { steps, bytes, is_spent: false }
    }

    /// Whether something could not be paid. Nothing can be from then on: who does without one thing
    /// goes on to the next.
    pub fn is_spent(&self) -> bool {
        self.is_spent
    }

    /// Pays for steps.
    ///
    /// # Errors
    /// When there are fewer left, as of everything that is paid.
    pub fn steps(&mut self, count: usize) -> Result<(), Spent> {
        self.take(count, 0)
    }

    /// Pays for bytes that are looked at.
    pub fn look(&mut self, bytes: usize) -> Result<(), Spent> {
        self.take(1 + bytes / BYTES_A_STEP, 0)
    }

    /// Pays for bytes that are made.
    pub fn make(&mut self, bytes: usize) -> Result<(), Spent> {
        self.take(1 + bytes / BYTES_A_STEP, bytes)
    }

    fn take(&mut self, steps: usize, bytes: usize) -> Result<(), Spent> {
        match (self.steps.checked_sub(steps), self.bytes.checked_sub(bytes)) {
            (Some(steps), Some(bytes)) if !self.is_spent => {
                (self.steps, self.bytes) = (steps, bytes);
                Ok(())
            }
            _ => {
                self.is_spent = true;
                Err(Spent)
            }
        }
    }
}

/// About the bytes of a value as JSON.
pub fn weight(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 8,
        Value::String(text) => text.len() + 4,
        Value::Array(items) => 4 + items.iter().map(weight).sum::<usize>(),
        Value::Object(fields) => 4 + fields.iter().map(|(name, value)| name.len() + 4 + weight(value)).sum::<usize>(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spent_stays_spent() {
        let mut budget = Budget::new(10, 100);
        assert_eq!(budget.make(64), Ok(()));
        assert_eq!(budget.look(64), Ok(()));
        assert_eq!(budget.steps(6), Ok(()));
        assert!(!budget.is_spent());
        assert_eq!(budget.steps(1), Err(Spent));
        assert_eq!(budget.steps(0), Err(Spent));
        assert!(budget.is_spent());
        assert_eq!(Budget::new(10, 100).make(101), Err(Spent));
        assert_eq!(Budget::new(1, usize::MAX).make(64), Err(Spent));
    }
}
