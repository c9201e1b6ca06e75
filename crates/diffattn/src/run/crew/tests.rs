//! Sections led by several at once, with and without help, and with panics.

use super::*;
use std::sync::atomic::AtomicBool;
use std::thread;

/// Threads that help, and how many were called.
fn calling(crew: &'static Crew) -> impl FnOnce(usize) -> usize {
    move |missing| {
        for _ in 0..missing {
            thread::spawn(|| crew.help());
        }
        missing
    }
}

/// Items that are taken by whoever comes, each slot by one thread at a time.
fn items(crew: &'static Crew, helpers: usize, items: usize) -> Vec<usize> {
    let next = AtomicUsize::new(0);
    let taken = (0..items).map(|_| AtomicUsize::new(0)).collect::<Vec<_>>();
    let held = (0..=helpers)
        .map(|_| AtomicBool::new(false))
        .collect::<Vec<_>>();
    let work = |slot: usize| {
        assert!(!held[slot].swap(true, Ordering::Acquire));
        loop {
            let item = next.fetch_add(1, Ordering::Relaxed);
            let Some(taken) = taken.get(item) else {
                break;
            };
            taken.fetch_add(1, Ordering::Relaxed);
        }
        held[slot].store(false, Ordering::Release);
    };
    match crew.try_lead() {
        Some(lead) => lead.share(helpers, &work, calling(crew)),
        None => work(0),
    }
    taken.into_iter().map(AtomicUsize::into_inner).collect()
}

#[test]
fn every_item_is_worked_on_once() {
    static CREW: Crew = Crew::new();
    let lead = |helpers: usize| {
        move || {
            for count in (0..2000).chain([50_000]) {
                assert_eq!(items(&CREW, helpers, count), vec![1; count]);
            }
        }
    };
    // Three that want to lead, with more and fewer helpers.
    let leaders = [1, 3, 7].map(|helpers| thread::spawn(lead(helpers)));
    for leader in leaders {
        assert!(leader.join().is_ok());
    }
}

#[test]
fn nobody_is_needed_but_the_leader() {
    static CREW: Crew = Crew::new();
    for _ in 0..3 {
        let ran = AtomicUsize::new(0);
        let lead = CREW.try_lead();
        // Whoever leads has the only right to.
        assert!(lead.is_some() && CREW.try_lead().is_none());
        let work = |slot| {
            assert_eq!(slot, 0);
            ran.fetch_add(1, Ordering::Relaxed);
        };
        lead.into_iter()
            .for_each(|lead| lead.share(5, &work, |_| 0));
        assert_eq!(ran.into_inner(), 1);
    }
    assert_eq!(CREW.called.load(Ordering::Relaxed), 0);
}

#[test]
fn helpers_are_awake_for_a_while_and_leave() {
    static CREW: Crew = Crew::new();
    let called = AtomicUsize::new(0);
    for _ in 0..100 {
        let lead = CREW.try_lead();
        let call = |missing| {
            called.fetch_add(missing, Ordering::Relaxed);
            calling(&CREW)(missing)
        };
        lead.into_iter()
            .for_each(|lead| lead.share(2, &|_| (), call));
    }
    assert!(called.into_inner() < 100);
    while CREW.called.load(Ordering::Relaxed) > 0 {
        yield_now();
    }
}

#[test]
fn a_panic_is_the_leaders_and_the_next_section_is_well() {
    static CREW: Crew = Crew::new();
    for panics in [0, 1] {
        let joined = AtomicBool::new(false);
        let work = |slot: usize| {
            joined.fetch_or(slot == 1, Ordering::AcqRel);
            while !joined.load(Ordering::Acquire) {
                yield_now();
            }
            assert!(slot != panics, "slot {slot}");
        };
        let share = || {
            let lead = CREW.try_lead();
            lead.into_iter()
                .for_each(|lead| lead.share(1, &work, calling(&CREW)));
        };
        let payload = catch_unwind(AssertUnwindSafe(share)).err();
        let told = payload.and_then(|payload| payload.downcast::<String>().ok());
        assert_eq!(told.as_deref(), Some(&format!("slot {panics}")));
        assert_eq!(items(&CREW, 1, 100), vec![1; 100]);
    }
}
