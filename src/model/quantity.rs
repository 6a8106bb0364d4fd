//! Kubernetes quantities (`500m`, `1.5Gi`, `2e3`): exact arithmetic, canonical print. PURE.

use std::cmp::Ordering;
use std::fmt;
use std::iter::Sum;
use std::ops::{Add, Sub};
use std::str::FromStr;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

const NANO: i128 = 1_000_000_000;
/// Kubernetes caps every quantity at this many units.
const MAX_UNITS: i128 = i64::MAX as i128;

/// How a quantity was written, and hence how it is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Format {
    /// `1k`, `500m`
    #[default]
    Decimal,
    /// `1Ki`
    Binary,
    /// `1e3`
    Exponent,
}

/// An amount in billionths of a unit. Equal and ordered by value, whatever the format.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

/// Why a text is not a quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$': \"{0}\" does not")]
pub struct QuantityError(pub String);

impl Quantity {
    pub const ZERO: Quantity = Quantity { nanos: 0, format: Format::Decimal };

    pub fn from_nanos(nanos: i128, format: Format) -> Self {
        Self { nanos: nanos.clamp(-MAX_UNITS * NANO, MAX_UNITS * NANO), format }
    }

    /// Whole units: `3` cpus, `110` pods.
    pub fn from_units(units: i64) -> Self {
        Self { nanos: i128::from(units) * NANO, format: Format::Decimal }
    }

    /// Thousandths, as cpu is counted.
    pub fn from_millis(millis: i64) -> Self {
        Self::from_nanos(i128::from(millis) * (NANO / 1000), Format::Decimal)
    }

    /// Bytes, printed with binary suffixes.
    pub fn from_bytes(bytes: i64) -> Self {
        Self { nanos: i128::from(bytes) * NANO, format: Format::Binary }
    }

    /// Reads the API's text form.
    ///
    /// # Errors
    /// When the text does not follow Kubernetes' grammar.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        read(text).ok_or_else(|| QuantityError(text.to_owned()))
    }

    /// The value of an API field; zero where the text is not a quantity (validation refuses such a
    /// text before it is ever stored).
    pub fn of(field: &ApiQuantity) -> Self {
        Self::parse(&field.0).unwrap_or(Self::ZERO)
    }

    pub fn nanos(&self) -> i128 {
        self.nanos
    }

    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    pub fn is_negative(&self) -> bool {
        self.nanos < 0
    }

    /// Whole units, rounded up: bytes, counts.
    pub fn units(&self) -> i64 {
        saturate(ceil_div(self.nanos, NANO))
    }

    /// Thousandths, rounded up.
    pub fn millis(&self) -> i64 {
        saturate(ceil_div(self.nanos, NANO / 1000))
    }

    /// CPU in thousandths of a core.
    pub fn cpu_millis(&self) -> i64 {
        self.millis()
    }

    /// Memory or storage in bytes.
    pub fn bytes(&self) -> i64 {
        self.units()
    }

    /// The canonical API form.
    pub fn to_api(&self) -> ApiQuantity {
        ApiQuantity(self.to_string())
    }
}

fn saturate(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

/// Rounds away from zero, as Kubernetes does.
fn ceil_div(value: i128, by: i128) -> i128 {
    let quotient = value / by;
    if value % by == 0 { quotient } else { quotient + value.signum() }
}

fn read(text: &str) -> Option<Quantity> {
    let (negative, rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let (number, suffix) = rest.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let (format, scale) = scale(suffix)?;
    let magnitude = match scale {
        Scale::Ten(exponent) => decimal(whole, fraction, exponent),
        Scale::Two(exponent) => binary(whole, fraction, exponent),
    };
    let nanos = magnitude.min(MAX_UNITS * NANO);
    let format = if format == Format::Binary && nanos > 0 && nanos < NANO { Format::Decimal } else { format };
    Some(Quantity { nanos: if negative { -nanos } else { nanos }, format })
}

enum Scale {
    Ten(i32),
    Two(u32),
}

fn scale(suffix: &str) -> Option<(Format, Scale)> {
    let decimal = |exponent| Some((Format::Decimal, Scale::Ten(exponent)));
    let binary = |exponent| Some((Format::Binary, Scale::Two(exponent)));
    match suffix {
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "" => decimal(0),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(10),
        "Mi" => binary(20),
        "Gi" => binary(30),
        "Ti" => binary(40),
        "Pi" => binary(50),
        "Ei" => binary(60),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E'])?;
            let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            let exponent = exponent.parse::<i32>().ok()?;
            Some((Format::Exponent, Scale::Ten(exponent.clamp(-100, 100))))
        }
    }
}

/// `whole.fraction × 10^exponent` in nanos, rounded up; saturates.
fn decimal(whole: &str, fraction: &str, exponent: i32) -> i128 {
    // Digits count from the point; `shift` digits of the fraction belong to the nanos.
    let digits = whole.bytes().chain(fraction.bytes()).map(|b| i128::from(b - b'0'));
    let keep = whole.len() as i64 + i64::from(exponent) + 9;
    let mut value: i128 = 0;
    let mut dropped = false;
    let mut taken: i64 = 0;
    for digit in digits {
        if taken < keep {
            value = value.saturating_mul(10).saturating_add(digit);
        } else {
            dropped |= digit != 0;
        }
        taken += 1;
    }
    while taken < keep && value != 0 {
        value = value.saturating_mul(10);
        taken += 1;
    }
    value.saturating_add(i128::from(dropped))
}

/// `whole.fraction × 2^exponent` in nanos, rounded up; saturates.
fn binary(whole: &str, fraction: &str, exponent: u32) -> i128 {
    // Nine digits after the point are exact; a longer tail only rounds up.
    let units = decimal(whole, fraction, 0);
    units.saturating_mul(1_i128 << exponent)
}

impl FromStr for Quantity {
    type Err = QuantityError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

/// Kubernetes' canonical form: no fraction, the largest suffix that loses nothing.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let below_kibi = self.nanos.abs() < 1024 * NANO;
        if self.format == Format::Binary && !below_kibi {
            let mut units = ceil_div(self.nanos, NANO);
            let mut step = 0;
            while step < 6 && units % 1024 == 0 {
                units /= 1024;
                step += 1;
            }
            return write!(f, "{units}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][step]);
        }
        let (mut mantissa, mut exponent) = (self.nanos, -9);
        while exponent < 18 && mantissa % 1000 == 0 {
            mantissa /= 1000;
            exponent += 3;
        }
        match (self.format, exponent) {
            (_, 0) => write!(f, "{mantissa}"),
            (Format::Exponent, _) => write!(f, "{mantissa}e{exponent}"),
            _ => {
                let suffix = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"].get(((exponent + 9) / 3) as usize).unwrap_or(&"");
                write!(f, "{mantissa}{suffix}")
            }
        }
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}
impl Eq for Quantity {}
impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl Add for Quantity {
    type Output = Quantity;
    fn add(self, other: Self) -> Self {
        let format = if self.nanos == 0 { other.format } else { self.format };
        Self::from_nanos(self.nanos.saturating_add(other.nanos), format)
    }
}

impl Sub for Quantity {
    type Output = Quantity;
    fn sub(self, other: Self) -> Self {
        let format = if self.nanos == 0 { other.format } else { self.format };
        Self::from_nanos(self.nanos.saturating_sub(other.nanos), format)
    }
}

impl Sum for Quantity {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::ZERO, Add::add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn prints_as_kubernetes_does() {
        for (text, canonical) in [
            ("0", "0"),
            ("0Gi", "0"),
            ("1", "1"),
            ("1000", "1k"),
            ("1024", "1024"),
            ("1024Ki", "1Mi"),
            ("0.5Gi", "512Mi"),
            ("1.5", "1500m"),
            ("100m", "100m"),
            ("1500m", "1500m"),
            ("2000m", "2"),
            (".5", "500m"),
            ("5.", "5"),
            ("+3", "3"),
            ("-3Mi", "-3Mi"),
            ("1e3", "1e3"),
            ("1E3", "1e3"),
            ("1E", "1E"),
            ("1e-3", "1e-3"),
            ("12e2", "1200"),
            ("100Ki", "100Ki"),
            ("1.1Ki", "1127"),
            ("0.1Ki", "102400m"),
            ("1n", "1n"),
            ("0.1n", "1n"),
            ("128974848", "128974848"),
            ("129M", "129M"),
            ("123Mi", "123Mi"),
            ("9223372036854775808", "9223372036854775807"),
            ("1e99", "9223372036854775807"),
        ] {
            assert_eq!(Quantity::parse(text).expect(text).to_string(), canonical, "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_quantity() {
        for text in ["", " 1", "1 ", ".", "1..2", "1.2.3", "1ki", "1Kib", "1e", "1e+", "abc", "0x10", "1,5", "--1", "1K", "1m5"] {
            assert!(Quantity::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn rounds_up_like_the_scheduler() {
        assert_eq!(Quantity::parse("1.0001").expect("parse").cpu_millis(), 1001);
        assert_eq!(Quantity::parse("100m").expect("parse").units(), 1);
        assert_eq!(Quantity::parse("1Gi").expect("parse").bytes(), 1 << 30);
        assert_eq!(Quantity::parse("-1500m").expect("parse").units(), -2);
    }

    proptest! {
        #[test]
        fn canonical_text_keeps_the_value(number in 0_u64..1_000_000_000, fraction in 0_u32..1000, suffix in 0_usize..17) {
            let suffix = ["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "e3", "E-2", "e+1"][suffix];
            let read = Quantity::parse(&format!("{number}.{fraction:03}{suffix}")).expect("a quantity");
            let again = Quantity::parse(&read.to_string()).expect("its print");
            // A binary amount of 1024 or more is printed in whole units, rounded up.
            let wanted = if read.format == Format::Binary && read.nanos >= 1024 * NANO { i128::from(read.units()) * NANO } else { read.nanos };
            prop_assert_eq!(again.nanos, wanted);
            // In Kubernetes as well: whole units print without a suffix, and are read as decimal ones.
            if again.format == read.format {
                prop_assert_eq!(again.to_string(), read.to_string());
            }
        }

        #[test]
        fn never_panics(text in "[-+0-9.eEinumkKMGTP]{0,60}") {
            if let Ok(read) = Quantity::parse(&text) {
                let _ = (read.to_string(), read.units(), read.millis());
            }
        }
    }
}
