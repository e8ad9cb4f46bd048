//! What a measurement finds of a figure.

/// A value, or as much as is known of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// This.
    Exact(f64),
    /// More than this: it was not waited for any longer.
    Beyond(f64),
    /// None: this contender does not have this figure.
    Missing,
}

impl From<f64> for Value {
    /// NaN stands for a figure that the contender does not have.
    fn from(value: f64) -> Self {
        if value.is_nan() { Self::Missing } else { Self::Exact(value) }
    }
}

impl Value {
    /// The number, NaN when there is none.
    pub fn number(self) -> f64 {
        match self {
            Self::Exact(value) | Self::Beyond(value) => value,
            Self::Missing => f64::NAN,
        }
    }

    /// Whether the true value is larger than the number.
    pub fn is_beyond(self) -> bool {
        matches!(self, Self::Beyond(_))
    }
}
