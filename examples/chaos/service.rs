//! Services: producers and the survivor call, consumers answer.
//!
//! A call ends within the bound: with its own answer, whole, or with an error that says that its server has died. The parts of a
//! stream come in order. The survivor's requests are delivered until they are answered; the producers' at most once. Servers say what
//! they have begun with: nothing twice, but what says that it is delivered again.

use std::{collections::HashMap, time::Duration};

use waterway::{
    Delivery, Receiver, Sender,
    service::{self, CallError, Client, Server},
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    BOUND, Result,
    patterns::{Aborted, Court, LastWord, Stage},
    stamp::{Random, Stamp},
};

const REQUEST: usize = 100;
const ANSWER: usize = 101;
const PART: usize = 102;
/// Requests that a server works on at once.
const AT_ONCE: usize = 3;
/// The client that survives.
const SURVIVOR: u32 = u32::MAX;

/// A server has begun with a request.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Begun {
    client: u32,
    count: u32,
    number: u64,
}

fn options(segment: &waterway::Segment) -> service::Options<[u8], [u8]> {
    segment.service("service").capacity(64).calls(8)
}

/// Which requests are answered by a stream, of how many parts.
fn parts(number: u64) -> Option<u64> {
    (number % 3 == 2).then_some(number % 40)
}

fn stamp(sender: u32, lane: usize, number: u64) -> Stamp {
    Stamp { sender, lane: lane as u32, number, len: 0 }
}

fn part_number(number: u64, part: u64) -> u64 {
    number << 8 | part
}

pub(crate) async fn play(stage: Stage) -> Result<()> {
    let random = Random::new(stage.seed ^ u64::from(stage.id) << 8 ^ REQUEST as u64);
    if stage.is_producer {
        return call_on(options(&stage.segment).client()?, stage.id, random).await;
    }
    let begun = stage.segment.channel::<Begun>("service-begun").sender()?;
    let server = options(&stage.segment).server()?;
    let at_once = (0..AT_ONCE).map(|_| serve(server.clone(), &begun, stage.id));
    futures::future::try_join_all(at_once).await?;
    Err("there is no client, and the survivor has one".into())
}

async fn serve(server: Server<[u8], [u8]>, begun: &Sender<Begun>, id: u32) -> Result<()> {
    let mut random = Random::new(u64::from(id));
    while let Some(request) = server.next().await {
        let Stamp { sender: client, number, .. } = Stamp::verify(&request, REQUEST)?;
        let count = request.delivery_count();
        begun.send(Begun { client, count, number }).await.map_err(|error| error.to_string())?;
        if random.below(8) == 0 {
            tokio::time::sleep(Duration::from_micros(random.below(2000) as u64)).await;
        }
        // That nobody waits any more is no concern of ours.
        match parts(number) {
            None => drop(request.respond(stamp(client, ANSWER, number).message(random.below(3000))).await),
            Some(parts) => {
                let mut stream = request.stream();
                for part in 0..parts {
                    let part = stamp(client, PART, part_number(number, part)).message(random.below(300));
                    if stream.send(part).await.is_err() {
                        break;
                    }
                }
                stream.finish();
            }
        }
    }
    Ok(())
}

fn check(answer: &[u8], lane: usize, client: u32, number: u64) -> Result<()> {
    let found = Stamp::verify(answer, lane)?;
    if (found.sender, found.number) != (client, number) {
        return Err(format!("{client} has asked {number}, and got {found:?}").into());
    }
    Ok(())
}

/// One call; `false` if its server has died.
async fn call(client: &Client<[u8], [u8]>, id: u32, number: u64, random: &mut Random, time: Duration) -> Result<bool> {
    let most = if random.below(16) == 0 { 60_000 } else { 2_000 };
    let request = stamp(id, REQUEST, number).message(random.below(most));
    let Some(parts) = parts(number) else {
        return match client.call_timeout(request, time).await {
            Ok(answer) => check(&answer, ANSWER, id, number).map(|()| true),
            Err(CallError::ServerGone(_)) => Ok(false),
            Err(CallError::Timeout(_)) if time < BOUND => Ok(false),
            Err(error) => Err(format!("{id} has asked {number}: {error}").into()),
        };
    };
    let streamed = async {
        let mut stream = client.call_stream(request).await.map_err(|error| error.to_string())?;
        for part in 0..=parts {
            match stream.next().await {
                Some(Ok(answer)) if part < parts => check(&answer, PART, id, part_number(number, part))?,
                None if part == parts => {}
                Some(Err(CallError::ServerGone(()))) => return Ok(false),
                other => return Err(format!("{id} has asked {number}: part {part} of {parts}: {other:?}").into()),
            }
        }
        Ok(true)
    };
    match tokio::time::timeout(time, streamed).await {
        Ok(done) => done,
        Err(_) if time < BOUND => Ok(false),
        Err(_) => Err(format!("{id} has asked {number}: no end of the stream").into()),
    }
}

async fn call_on(client: Client<[u8], [u8]>, id: u32, mut random: Random) -> Result<()> {
    for number in 0.. {
        // Some are given up.
        let time = if random.below(8) == 0 { Duration::from_micros(random.below(3000) as u64) } else { BOUND };
        call(&client, id, number, &mut random, time).await?;
        tokio::time::sleep(Duration::from_micros(random.below(4000) as u64)).await;
    }
    Ok(())
}

async fn read_begun(court: Court, receiver: Receiver<Begun>) {
    let mut counts = HashMap::new();
    while let Some(begun) = receiver.recv().await {
        let before = counts.insert((begun.client, begun.number), begun.count).unwrap_or(0);
        if begun.count <= before || begun.client != SURVIVOR && begun.count != 1 {
            court.fail(format!("{:?}, after {before}", *begun));
        }
    }
}

pub(crate) async fn judge(court: Court) -> Result<LastWord> {
    // Nobody serves it here; with it, the service is never closed.
    let server = options(&court.segment).server()?;
    let client = options(&court.segment).delivery(Delivery::AtLeastOnce { max_deliveries: 1000 }).client()?;
    let (begun_open, begun) = court.segment.channel::<Begun>("service-begun").open()?;
    let reader = tokio::task::spawn_local(read_begun(court.clone(), begun));
    let mut random = Random::new(1);
    let mut number = 0;
    while !court.is_over() {
        // Streams are delivered at most once.
        if call(&client, SURVIVOR, number, &mut random, BOUND).await? {
            court.went_well();
        } else if parts(number).is_none() {
            court.fail(format!("request {number} was not delivered again"));
        }
        number += 1;
        tokio::time::sleep(Duration::from_micros(500)).await;
    }
    // The client is kept, so that servers do not end before they are asked to.
    let holds = move || server.client_count() == 1 && client.server_count() == 1 && server.is_empty();
    Ok(LastWord::new(holds, (begun_open, Aborted(reader))))
}
