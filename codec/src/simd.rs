//! Which vector instructions the codec uses, decided once for the whole process.
//!
//! Every vectorised function has a scalar twin that defines it. Functions take the [`Level`] as an argument, so that
//! tests run each of them whatever the process decided.

use std::sync::OnceLock;

/// What the processor can do, each level including the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// Nothing is assumed.
    Scalar,
    /// AVX2 and BMI2.
    Avx2,
    /// AVX-512 F, BW, DQ and VL.
    Avx512,
    /// AVX-512 VBMI and VBMI2 too.
    Avx512Vbmi2,
}

/// The environment variable that lowers the level: `scalar`, `avx2`, `avx512` or `avx512vbmi2`.
const VARIABLE: &str = "BIGSMALL_SIMD";

impl Level {
    const ALL: [Level; 4] = [Level::Scalar, Level::Avx2, Level::Avx512, Level::Avx512Vbmi2];

    /// Its name, as the environment variable has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Level::Scalar => "scalar",
            Level::Avx2 => "avx2",
            Level::Avx512 => "avx512",
            Level::Avx512Vbmi2 => "avx512vbmi2",
        }
    }

    /// The level of that name.
    pub(crate) fn named(name: &str) -> Option<Level> {
        Level::ALL.into_iter().find(|level| level.name() == name)
    }

    /// The best that this processor has.
    #[cfg(target_arch = "x86_64")]
    fn detect() -> Level {
        use std::arch::is_x86_feature_detected as has;
        let avx2 = has!("avx2") && has!("bmi1") && has!("bmi2") && has!("popcnt");
        let avx512 = has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl");
        let vbmi2 = has!("avx512vbmi") && has!("avx512vbmi2");
        match (avx2, avx512, vbmi2) {
            (true, true, true) => Level::Avx512Vbmi2,
            (true, true, false) => Level::Avx512,
            (true, false, _) => Level::Avx2,
            (false, ..) => Level::Scalar,
        }
    }

    /// The best that this processor has.
    #[cfg(not(target_arch = "x86_64"))]
    fn detect() -> Level {
        Level::Scalar
    }

    /// All levels that this processor has, the lowest first: what a test or a bench compares with one another.
    pub(crate) fn available() -> impl Iterator<Item = Level> {
        let best = Level::detect();
        Level::ALL.into_iter().filter(move |&level| level <= best)
    }
}

/// The level to use: the best that the processor has, or the one that the environment asks for.
///
/// When the processor lacks that one, it is the best that it has; a name that is none of a level asks for nothing.
pub(crate) fn level() -> Level {
    static LEVEL: OnceLock<Level> = OnceLock::new();
    *LEVEL.get_or_init(|| {
        let best = Level::detect();
        let asked = std::env::var(VARIABLE).ok();
        best.min(asked.and_then(|asked| Level::named(&asked)).unwrap_or(best))
    })
}

/// The name of the vector instructions that are used: the best of this processor, or those that `BIGSMALL_SIMD` asks for.
pub fn implementation() -> &'static str {
    level().name()
}

/// Compiles a function, which must be marked `#[inline(always)]`, for each level and calls the one for `$level`: for loops that a
/// compiler makes vectors of.
macro_rules! at_level {
    ($level:expr, $name:ident $(::<$size:tt>)? ($($argument:ident: $type:ty),*)) => {{
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2")]
        fn with_avx2($($argument: $type),*) {
            $name$(::<$size>)?($($argument),*);
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
        fn with_avx512($($argument: $type),*) {
            $name$(::<$size>)?($($argument),*);
        }
        match $level {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a level is only given where the processor has what it stands for.
            $crate::simd::Level::Avx2 => unsafe { with_avx2($($argument),*) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            $crate::simd::Level::Avx512 | $crate::simd::Level::Avx512Vbmi2 => unsafe { with_avx512($($argument),*) },
            _ => $name$(::<$size>)?($($argument),*),
        }
    }};
}
pub(crate) use at_level;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_in_order_and_the_chosen_one_is_available() {
        assert!(Level::ALL.is_sorted());
        assert_eq!(Level::available().next(), Some(Level::Scalar));
        assert!(Level::available().any(|available| available == level()));
        assert!(Level::ALL.into_iter().all(|level| Level::named(level.name()) == Some(level)));
        assert_eq!(Level::named("AVX2"), None);
    }
}
