//! What a server's answer says of the time: when it was made, and when to come again.

use super::*;
use crate::fuzz::{Fate, NOW, headers, hold};
use crate::host::clock::{FixedClock, MAX_SKEW, SKEW_NOISE};

#[test]
fn answer_times() {
    let seeds = [
        "Date: Thu, 01 Jan 2026 12:10:00 GMT\nRetry-After: 120",
        "Date: Thu, 01 Jan 2026 11:59:59 +0100\nAge: 0\nRetry-After: Thu, 01 Jan 2026 12:01:00 GMT",
        "Date: Fri, 31 Dec 9999 23:59:59 -2359\nRetry-After: 4294967295",
        "Retry-After: Mon,\t1 Jan 1900 00:00 (a while) Z",
    ];
    hold("answer_times", seeds.map(|seed| seed.into()), |input| {
        let headers = headers(input);
        let skew = SkewMeter::default();
        let client = HttpClient::new(Arc::new(FixedClock(NOW)), skew.clone(), None);
        client.note_skew(&headers);
        let believed = skew.get().unwrap_or_default().abs();
        assert!(believed.is_zero() || (SKEW_NOISE..=MAX_SKEW).contains(&believed));
        let kept = headers.get(AGE).is_some_and(|age| age != "0");
        assert!(!kept || skew.get().is_none(), "what was kept says nothing of now");

        let (status, body) = (StatusCode::SERVICE_UNAVAILABLE, Secret::new(Vec::new()));
        let response = Response { status, headers, body };
        let error = response.outage("somebody").unwrap();
        let [hint] = error.hints() else { panic!("{error}") };
        // Nothing of it is quoted: a date is said as everybody writes it.
        let wish = response.retry_after(NOW);
        let said = hint.strip_prefix("it asks to be tried again ");
        match (wish, said.and_then(|said| said.strip_prefix("after "))) {
            (Some(wish), Some(date)) => {
                assert_eq!(retry_after(date, NOW).unwrap().as_secs(), wish.as_secs());
            }
            (Some(wish), None) => {
                let seconds = said.map(|_| format!("in {} seconds", wish.as_secs()));
                assert_eq!(said, seconds.as_deref());
            }
            (None, _) => assert_eq!(said, None),
        }
        assert!(hint.chars().all(|c| c.is_ascii() && !c.is_control()), "{hint:?}");
        // Later there is less to wait for, or as much.
        let later = response.retry_after(NOW + time::Duration::SECOND);
        assert!(later <= wish);
        Fate::accepted_if(wish.is_some() && !believed.is_zero())
    });
}
