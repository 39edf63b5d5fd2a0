//! The Reed-Solomon code of the Python package's sidecars: 223 bytes of data and 32 of parity over GF(2^8), so that up to 16
//! wrong bytes of the 255 are found and put right, wherever they are.
//!
//! The field is made by x^8 + x^4 + x^3 + x^2 + 1, its generator is 2, and the roots of the code are 2^0 to 2^31. The first byte of
//! a code word is its highest power. Errors are found as in the textbooks: syndromes, the Berlekamp-Massey algorithm for the locator
//! (J. L. Massey, "Shift-register synthesis and BCH decoding", 1969), Chien's search for its roots, and Forney's formula for the
//! values (G. D. Forney, "On decoding BCH codes", 1965).

/// Bytes of data and of parity in a code word, and of both.
pub(super) const DATA: usize = 223;
pub(super) const PARITY: usize = 32;
const WORD: usize = DATA + PARITY;

/// The polynomial of the field.
const POLYNOMIAL: u16 = 0x11d;

/// The order of the generator: powers of it repeat after so many.
const ORDER: usize = 255;

/// Powers of the generator, twice over so that exponents need no reduction, and logarithms (that of 0 means nothing).
const FIELD: ([u8; 2 * ORDER], [u8; 256]) = {
    let (mut powers, mut logarithms) = ([0; 2 * ORDER], [0; 256]);
    let (mut power, mut exponent) = (1u16, 0);
    while exponent < ORDER {
        powers[exponent] = power as u8;
        powers[exponent + ORDER] = power as u8;
        logarithms[power as usize] = exponent as u8;
        power <<= 1;
        if power & 0x100 != 0 {
            power ^= POLYNOMIAL;
        }
        exponent += 1;
    }
    (powers, logarithms)
};
static POWERS: [u8; 2 * ORDER] = FIELD.0;
static LOGARITHMS: [u8; 256] = FIELD.1;

fn multiply(a: u8, b: u8) -> u8 {
    match (a, b) {
        (0, _) | (_, 0) => 0,
        _ => POWERS[usize::from(LOGARITHMS[usize::from(a)]) + usize::from(LOGARITHMS[usize::from(b)])],
    }
}

/// The quotient of `a` and `b`, which is not 0.
fn divide(a: u8, b: u8) -> u8 {
    match a {
        0 => 0,
        _ => POWERS[usize::from(LOGARITHMS[usize::from(a)]) + ORDER - usize::from(LOGARITHMS[usize::from(b)])],
    }
}

/// A polynomial at `x`; the coefficients begin with that of the lowest power.
fn evaluate(coefficients: &[u8], x: u8) -> u8 {
    coefficients.iter().rev().fold(0, |value, &coefficient| multiply(value, x) ^ coefficient)
}

/// Computes parity, and puts code words right.
pub(super) struct Code {
    /// For each byte that leaves the shift register, what is added to it: multiples of the generator polynomial.
    feedback: Box<[[u8; PARITY]; 256]>,
}

impl Code {
    pub(super) fn new() -> Code {
        // The product of all x - 2^i, highest power first, without that, which is 1.
        let mut generator = [0u8; PARITY + 1];
        generator[0] = 1;
        for (degree, &root) in POWERS[..PARITY].iter().enumerate() {
            for place in (1..=degree + 1).rev() {
                generator[place] ^= multiply(generator[place - 1], root);
            }
        }
        let mut feedback = Box::new([[0; PARITY]; 256]);
        for (byte, multiple) in feedback.iter_mut().enumerate() {
            *multiple = std::array::from_fn(|place| multiply(generator[place + 1], byte as u8));
        }
        Code { feedback }
    }

    /// The parity of `data`.
    pub(super) fn parity(&self, data: &[u8; DATA]) -> [u8; PARITY] {
        let mut register = [0u8; PARITY];
        for byte in data {
            let multiple = &self.feedback[usize::from(byte ^ register[0])];
            register.copy_within(1.., 0);
            register[PARITY - 1] = 0;
            register.iter_mut().zip(multiple).for_each(|(have, add)| *have ^= add);
        }
        register
    }

    /// Puts `data` and its `parity` right; gives how many bytes were wrong, or `None`, with nothing changed, if there are more than
    /// can be put right.
    pub(super) fn correct(&self, data: &mut [u8; DATA], parity: &mut [u8; PARITY]) -> Option<usize> {
        if self.parity(data) == *parity {
            return Some(0);
        }
        let byte = |place: usize| if place < DATA { data[place] } else { parity[place - DATA] };
        let syndromes: [u8; PARITY] =
            std::array::from_fn(|root| (0..WORD).fold(0, |value, place| multiply(value, POWERS[root]) ^ byte(place)));
        let locator = locator(&syndromes)?;
        let errors = locator.len() - 1;
        // Of the syndromes times the locator, what Forney's formula needs.
        let mut evaluator = [0u8; PARITY];
        for (a, &syndrome) in syndromes.iter().enumerate() {
            for (b, &coefficient) in locator.iter().enumerate().take(PARITY - a) {
                evaluator[a + b] ^= multiply(syndrome, coefficient);
            }
        }
        // The formal derivative: in this field the even powers vanish.
        let derivative: Vec<u8> =
            locator.iter().enumerate().skip(1).map(|(power, &c)| if power % 2 == 1 { c } else { 0 }).collect();
        let (mut right_data, mut right_parity, mut found) = (*data, *parity, 0);
        for place in 0..WORD {
            let inverse = POWERS[(ORDER - (WORD - 1 - place)) % ORDER];
            if evaluate(&locator, inverse) != 0 {
                continue;
            }
            let slope = evaluate(&derivative, inverse);
            if slope == 0 {
                return None;
            }
            let value = divide(multiply(POWERS[WORD - 1 - place], evaluate(&evaluator, inverse)), slope);
            if place < DATA {
                right_data[place] ^= value;
            } else {
                right_parity[place - DATA] ^= value;
            }
            found += 1;
        }
        if found != errors || self.parity(&right_data) != right_parity {
            return None;
        }
        (*data, *parity) = (right_data, right_parity);
        Some(errors)
    }
}

/// The polynomial whose roots are the inverses of the places of the errors, lowest power first: Berlekamp and Massey's
/// algorithm. `None` if there are too many.
fn locator(syndromes: &[u8; PARITY]) -> Option<Vec<u8>> {
    let (mut locator, mut previous) = (vec![1u8], vec![1u8]);
    let (mut errors, mut gap, mut last) = (0, 1, 1u8);
    for step in 0..PARITY {
        let discrepancy = (0..=errors.min(locator.len() - 1))
            .fold(0, |sum, back| sum ^ multiply(locator[back], syndromes[step - back]));
        if discrepancy == 0 {
            gap += 1;
            continue;
        }
        let factor = divide(discrepancy, last);
        let mut next = locator.clone();
        next.resize(next.len().max(previous.len() + gap), 0);
        for (place, &coefficient) in previous.iter().enumerate() {
            next[place + gap] ^= multiply(factor, coefficient);
        }
        if 2 * errors <= step {
            errors = step + 1 - errors;
            previous = std::mem::replace(&mut locator, next);
            (last, gap) = (discrepancy, 1);
        } else {
            locator = next;
            gap += 1;
        }
    }
    while locator.last() == Some(&0) {
        locator.pop();
    }
    (errors <= PARITY / 2 && locator.len() == errors + 1).then_some(locator)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that look random and are the same in every run.
    fn random(state: &mut u64) -> u64 {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *state >> 33
    }

    fn word(code: &Code, state: &mut u64) -> ([u8; DATA], [u8; PARITY]) {
        let data = std::array::from_fn(|_| random(state) as u8);
        (data, code.parity(&data))
    }

    #[test]
    fn code_words_have_the_roots_that_the_format_names() {
        let (code, mut state) = (Code::new(), 1);
        let (data, parity) = word(&code, &mut state);
        for &root in &POWERS[..PARITY] {
            let value = data.iter().chain(&parity).fold(0, |value, &byte| multiply(value, root) ^ byte);
            assert_eq!(value, 0, "root {root}");
        }
    }

    #[test]
    fn multiplication_is_that_of_the_field() {
        for a in 0..=255u8 {
            for b in 0..=255u8 {
                // Shift and add.
                let mut product = 0u16;
                for bit in 0..8 {
                    if b >> bit & 1 == 1 {
                        product ^= u16::from(a) << bit;
                    }
                }
                for bit in (8..15).rev() {
                    if product >> bit & 1 == 1 {
                        product ^= POLYNOMIAL << (bit - 8);
                    }
                }
                assert_eq!(u16::from(multiply(a, b)), product);
                assert!(b == 0 || divide(multiply(a, b), b) == a);
            }
        }
    }

    #[test]
    fn up_to_sixteen_wrong_bytes_are_put_right_and_more_are_refused() {
        let (code, mut state) = (Code::new(), 2);
        for round in 0..400 {
            let (data, parity) = word(&code, &mut state);
            let errors = round % 24;
            let mut places: Vec<usize> = (0..WORD).collect();
            let (mut torn_data, mut torn_parity) = (data, parity);
            for chosen in 0..errors {
                places.swap(chosen, chosen + random(&mut state) as usize % (WORD - chosen));
                let wrong = random(&mut state) as u8 | 1;
                match places[chosen] {
                    place if place < DATA => torn_data[place] ^= wrong,
                    place => torn_parity[place - DATA] ^= wrong,
                }
            }
            let before = (torn_data, torn_parity);
            match code.correct(&mut torn_data, &mut torn_parity) {
                Some(corrected) => {
                    assert!(errors <= PARITY / 2, "{errors} errors cannot be put right");
                    assert_eq!((corrected, torn_data, torn_parity), (errors, data, parity));
                }
                None => {
                    assert!(errors > PARITY / 2, "{errors} errors");
                    assert_eq!((torn_data, torn_parity), before);
                }
            }
        }
    }

    #[test]
    fn no_bytes_make_it_fail() {
        let (code, mut state) = (Code::new(), 3);
        for round in 0..300u64 {
            let mut data: [u8; DATA] = std::array::from_fn(|_| random(&mut state) as u8);
            let mut parity: [u8; PARITY] = std::array::from_fn(|_| (random(&mut state) * (round % 3)) as u8);
            if code.correct(&mut data, &mut parity).is_some() {
                assert_eq!(code.parity(&data), parity);
            }
        }
    }
}
