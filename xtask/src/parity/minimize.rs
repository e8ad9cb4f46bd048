//! The shortest script that still shows a difference.

/// Runs spent on shortening a failing sequence.
const MINIMIZE_BUDGET: usize = 40;

/// The shortest sequence found for which `fails` still holds: removes ever smaller stretches while it does.
pub(super) fn minimize(steps: &[String], fails: impl Fn(&[String]) -> bool) -> Vec<String> {
    let mut kept = steps.to_vec();
    let mut budget = MINIMIZE_BUDGET;
    let mut stretch = kept.len().div_ceil(2);
    while stretch >= 1 {
        let mut at = 0;
        let mut removed = false;
        while at < kept.len() && budget > 0 {
            let mut shorter = kept.clone();
            shorter.drain(at..(at + stretch).min(kept.len()));
            budget -= 1;
            if !shorter.is_empty() && fails(&shorter) {
                kept = shorter;
                removed = true;
            } else {
                at += stretch;
            }
        }
        if budget == 0 || (stretch == 1 && !removed) {
            break;
        }
        stretch = if stretch == 1 { 1 } else { stretch.div_ceil(2) };
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minimizing_keeps_what_is_needed() {
        let steps: Vec<String> = (0..25).map(|n| n.to_string()).collect();
        let needed = ["3", "17"];
        let fails = |steps: &[String]| needed.iter().all(|need| steps.iter().any(|step| step == need));
        assert_eq!(minimize(&steps, fails), needed);
    }
}
