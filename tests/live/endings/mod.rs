//! Each ending provoked for real, beside the harmless twin that looks like it.
//!
//! | ending | provoked by | its twin, which is no loss |
//! |---|---|---|
//! | `peer_closed` | `cases::fin_client_first` | (is none) |
//! | `idle_closed` | `cases::server_first`, `cases::child_killed_idle` (a pool closed by the exit) | (is none) |
//! | `late_close` | `cases::tls_like_graceful_drain_client_sends_alert_after_fin`, `endings::farewells_that_cross_are_no_loss` | (is none) |
//! | `late_data` | `endings::a_request_that_met_the_close_is_lost`, `cases::late_data_timewait`, `endings::a_request_that_is_swallowed_after_the_fin_is_lost` | `endings::an_http2_drain_is_no_loss`, `cases::tls_like_graceful_drain_…`, `endings::a_farewell_that_is_swallowed_after_the_fin_is_no_loss`, `endings::an_upload_that_goes_on_after_its_answer_is_a_doubt` (possible) |
//! | `reset_unread` | `cases::unread_close`, `endings::a_tls_request_left_unread_is_lost`, `targets::a_process_that_dies_within_a_millisecond_…` | `endings::a_tls_farewell_left_unread_is_no_loss`, `endings::a_long_tls_farewell_left_unread_is_a_doubt`, `cases::peer_fin_unread_close_notify` (possible) |
//! | `reset_abort` | `cases::linger0_close`, `endings::an_abort_within_an_answer_is_a_loss` | `endings::an_abort_after_the_answer_is_a_doubt` (possible) |
//! | `reset_backlog` | `targets::a_process_that_dies_within_a_millisecond_…` | `cases::backlog_unaccepted` (possible), `endings::a_declared_checker_loses_nothing`, `agent::probes_are_never_a_loss_…` |
//! | `unanswered` | `targets::a_process_that_dies_within_a_millisecond_…`, `endings::a_tls_request_and_a_farewell_are_no_answer`, `endings::an_http2_stream_without_an_answer_is_lost` | `endings::a_tls_farewell_is_no_loss`, `endings::a_database_connection_is_left_open_at_exit` |
//! | `mid_response` | `endings::an_answer_cut_short_is_lost_whoever_closes`, `endings::chunks_without_the_last_are_lost`, `endings::an_answer_cut_short_is_lost_though_the_client_spoke_last` | `endings::a_whole_answer_and_a_close_are_no_loss`, `endings::whole_chunks_are_no_loss`, `cases::child_exit_after_response_200k`, `endings::an_answer_that_crosses_with_a_farewell_is_a_doubt` (possible) |
//! | `refused` | `cases::refused` | `endings::a_declared_checker_loses_nothing` |
//! | `refused_handshake` | `endings::a_handshake_whose_listener_went_is_refused` | `endings::a_handshake_whose_listener_stays_is_no_loss` |
//! | `dropped` | `cases::accept_overflow_silent` | (a count without addresses) |
//! | `peer_reset` | `endings::a_checker_that_connects_and_resets_loses_nothing` | (is none) |
//! | `timed_out` | `cases::active_open_no_neighbour_then_close` | (is none) |
//! | `open_at_teardown` | `endings::what_is_open_when_the_interface_goes_is_lost` | `endings::what_is_closed_when_the_interface_goes_is_no_loss` |

mod edges;
mod farewell;
mod swallowed;

use std::{thread, time::Duration};

use anyhow::{Error, Result, ensure};
use lastpacket_tests::{
    events::{Events, ensure_balanced},
    machine::kernel_version,
    needs,
    netns::Family,
    process::Resident,
    run::{self, Run},
};
use libtest_mimic::Trial;
use socket2::{Protocol, Socket};
use tracer_core::words::{self, Confidence, Ending, Role};

use crate::{
    children,
    scene::{Pair, Scene, pause, read_eof, read_some, send, socket},
};

type Told = (Ending, Option<Confidence>);

const CERTAIN: Option<Confidence> = Some(Confidence::Certain);
const LIKELY: Option<Confidence> = Some(Confidence::Likely);
const POSSIBLE: Option<Confidence> = Some(Confidence::Possible);
const IDLE: Told = (Ending::IdleClosed, None);

const REQUEST: &[u8] =
    b"GET / HTTP/1.1\r\nHost: pod\r\nUser-Agent: a client with a name of some length\r\n\r\n";
/// Of 500 bytes of body.
const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nServer: test\r\nContent-Length: 500\r\nConnection: close\r\n\r\n";
const CHUNKED_HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
const CHUNK: &[u8] = b"5\r\nhello\r\n";
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub fn trials() -> Vec<Trial> {
    let mut trials = vec![
        needs::live("endings::an_answer_cut_short_is_lost_whoever_closes", cut_short),
        needs::live("endings::a_database_connection_is_left_open_at_exit", database),
        needs::live("endings::a_declared_checker_loses_nothing", declared_checker),
        needs::live("endings::a_checker_that_connects_and_resets_loses_nothing", resetting_checker),
    ];
    trials.extend([
        needs::live("endings::a_handshake_whose_listener_went_is_refused", edges::refused_handshake),
        needs::live("endings::a_handshake_whose_listener_stays_is_no_loss", edges::deferred_handshake),
        needs::live("endings::what_is_open_when_the_interface_goes_is_lost", edges::open_at_teardown),
        needs::live("endings::what_is_closed_when_the_interface_goes_is_no_loss", edges::closed_at_teardown),
    ]);
    for (name, play, told) in PLAYS.into_iter().chain(farewell::PLAYS).chain(swallowed::PLAYS) {
        trials.push(needs::live(format!("endings::{name}"), move || ensure_told(&trace(&[], play)?, &told)));
    }
    let of_answers = PLAYS_OF_ANSWERS.into_iter().chain(farewell::PLAYS_OF_ANSWERS);
    for (name, play, told, before) in of_answers.chain([swallowed::PLAY_OF_ANSWERS]) {
        let told = move || if answers_are_seen()? { Ok(told) } else { Ok::<_, Error>(before) };
        trials.push(needs::live(format!("endings::{name}"), move || {
            ensure_told(&trace(&[], play)?, &[told()?])
        }));
    }
    trials
}

/// From Linux 6.3 on; before, `cannot_show` says what that hides (`kernel::absent_hooks…`).
fn answers_are_seen() -> Result<bool> {
    Ok(kernel_version()? >= (6, 3))
}

type Play = fn(&mut Scene) -> Result<()>;

/// What the server does with one connection, how that must be told, and how where nothing is seen of
/// answers.
type PlayOfAnswers = (&'static str, Play, Told, Told);

const PLAYS_OF_ANSWERS: [PlayOfAnswers; 4] = [
    ("chunks_without_the_last_are_lost", open_chunks, (Ending::MidResponse, CERTAIN), IDLE),
    ("an_http2_stream_without_an_answer_is_lost", http2_open_stream, (Ending::Unanswered, LIKELY), IDLE),
    ("a_tls_request_and_a_farewell_are_no_answer", tls_unanswered, (Ending::Unanswered, POSSIBLE), IDLE),
    (
        "an_abort_within_an_answer_is_a_loss",
        abort_within,
        (Ending::ResetAbort, CERTAIN),
        (Ending::ResetAbort, POSSIBLE),
    ),
];

/// The same, on every kernel.
const PLAYS: [(&str, Play, [Told; 1]); 6] = [
    ("a_whole_answer_and_a_close_are_no_loss", whole_answer, [IDLE]),
    ("whole_chunks_are_no_loss", whole_chunks, [IDLE]),
    ("an_http2_drain_is_no_loss", http2_drain, [(Ending::LateClose, None)]),
    ("a_tls_farewell_is_no_loss", tls_farewell, [(Ending::LateClose, None)]),
    ("a_request_that_met_the_close_is_lost", late_request, [(Ending::LateData, CERTAIN)]),
    ("an_abort_after_the_answer_is_a_doubt", abort_after, [(Ending::ResetAbort, POSSIBLE)]),
];

/// Plays with the server's namespace traced, until a process that lives there has ended.
fn trace(options: &[&str], play: impl FnOnce(&mut Scene) -> Result<()>) -> Result<Run> {
    let mut scene = Scene::new(Family::V4)?;
    let resident = Resident::of(&scene.link.server)?;
    let pid = resident.pid().to_string();
    let arguments = [&["trace", "--pid", &pid, "--linger", "100ms", "--quiet", "0ms"], options].concat();
    let mut lastpacket = run::start(&arguments)?;
    lastpacket.wait_for(1, |body| matches!(body, tracer_core::output::Body::Phase(_)))?;
    play(&mut scene)?;
    pause(120);
    resident.terminate()?;
    let run = lastpacket.finish()?;
    ensure_balanced(run.lines.verdict()?)?;
    Ok(run)
}

/// The endings of the clients' connections in order, with what came after the end, and the verdict that
/// follows from them.
fn ensure_told(run: &Run, expected: &[Told]) -> Result<()> {
    let served = run.lines.closed().into_iter().filter(|event| event.role == Role::Server);
    let mut told: Vec<Told> =
        served.filter_map(|event| event.end.as_ref().map(|end| (end.ending, end.confidence))).collect();
    // A reset after the end tells more than the end.
    let late = run.lines.resets().into_iter().filter(|reset| reset.segment.is_some());
    for (told, late) in told.iter_mut().zip(late) {
        if let Some(ending) = late.ending {
            *told = (ending, late.confidence);
        }
    }
    ensure!(told == expected, "told {told:?}, expected {expected:?}; {:#?}", run.lines.closed());
    let cut = expected.iter().any(|(_, confidence)| *confidence >= LIKELY);
    let verdict = run.lines.verdict()?;
    ensure!((verdict.result == words::Result::Cut) == cut, "{}: {:?}", verdict.result, verdict.reasons);
    Ok(())
}

/// A client's request, read by the server.
fn asked(scene: &mut Scene, request: &[u8]) -> Result<Pair> {
    let pair = scene.pair()?;
    pair.server.set_tcp_nodelay(true)?;
    send(&pair.client, request)?;
    read_some(&pair.server)?;
    Ok(pair)
}

/// The server says these things one after the other and closes at once; the client reads to the end.
fn say_and_close(scene: &mut Scene, pair: Pair, words: &[&[u8]]) -> Result<Socket> {
    words.iter().try_for_each(|words| send(&pair.server, words))?;
    drop(pair.server);
    scene.read_to_end(&pair.client)?;
    Ok(pair.client)
}

fn whole_answer(scene: &mut Scene) -> Result<()> {
    let pair = asked(scene, REQUEST)?;
    say_and_close(scene, pair, &[HEAD, &[b'x'; 500]]).map(drop)
}

fn open_chunks(scene: &mut Scene) -> Result<()> {
    let pair = asked(scene, REQUEST)?;
    say_and_close(scene, pair, &[CHUNKED_HEAD, CHUNK]).map(drop)
}

fn whole_chunks(scene: &mut Scene) -> Result<()> {
    let pair = asked(scene, REQUEST)?;
    say_and_close(scene, pair, &[CHUNKED_HEAD, CHUNK, LAST_CHUNK]).map(drop)
}

/// The same cut-off answer, by a close and by an exit.
fn cut_short() -> Result<()> {
    let by_close = |scene: &mut Scene| {
        let pair = asked(scene, REQUEST)?;
        let whole = [HEAD, &[b'x'; 400]].concat();
        say_and_close(scene, pair, &[&whole]).map(drop)
    };
    let told = if answers_are_seen()? { (Ending::MidResponse, CERTAIN) } else { IDLE };
    ensure_told(&trace(&[], by_close)?, &[told])?;
    let by_exit = |scene: &mut Scene| {
        let listener = scene.listen(16)?;
        let client = scene.connect(&listener)?;
        send(&client, &REQUEST[..10])?;
        children::start(&scene.link.server, "answer-in-part-and-exit", &listener)?.wait()?;
        scene.read_to_end(&client)
    };
    let told = (Ending::MidResponse, if answers_are_seen()? { CERTAIN } else { POSSIBLE });
    ensure_told(&trace(&[], by_exit)?, &[told])
}

/// An HTTP/2 frame.
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap_or(u8::MAX);
    [&[0, 0, length, kind, flags, 0, 0, 0, stream], payload].concat()
}

/// A connection with one stream opened.
fn http2(scene: &mut Scene) -> Result<Pair> {
    asked(scene, &[PREFACE, &frame(4, 0, 0, &[]), &frame(1, 5, 1, &[0x82; 40])].concat())
}

/// GOAWAY, a PING and its answer, the close, and the client's own GOAWAY after that.
fn http2_drain(scene: &mut Scene) -> Result<()> {
    let pair = http2(scene)?;
    send(
        &pair.server,
        &[frame(4, 0, 0, &[]), frame(1, 4, 1, &[0x88; 8]), frame(0, 1, 1, b"hello")].concat(),
    )?;
    read_some(&pair.client)?;
    send(&pair.server, &[frame(7, 0, 0, &[0; 8]), frame(6, 0, 0, &[0; 8])].concat())?;
    send(&pair.client, &frame(6, 1, 0, &[0; 8]))?;
    pause(20);
    read_some(&pair.server)?;
    let client = say_and_close(scene, pair, &[])?;
    send(&client, &frame(7, 0, 0, &[0; 8]))?;
    pause(20);
    Ok(())
}

/// What the server wrote last are control frames, and the stream has no answer.
fn http2_open_stream(scene: &mut Scene) -> Result<()> {
    let pair = http2(scene)?;
    say_and_close(scene, pair, &[&frame(4, 0, 0, &[]), &frame(7, 0, 0, &[0; 8])]).map(drop)
}

/// A TLS record.
fn record(kind: u8, length: u8) -> Vec<u8> {
    [&[kind, 3, 3, 0, length], &vec![b'e'; length.into()][..]].concat()
}

const TLS_DATA: u8 = 23;
const TLS_ALERT: u8 = 19;

fn tls_farewell(scene: &mut Scene) -> Result<()> {
    let pair = asked(scene, &record(TLS_DATA, 90))?;
    let client = say_and_close(scene, pair, &[&record(TLS_DATA, 80), &record(TLS_DATA, TLS_ALERT)])?;
    send(&client, &record(TLS_DATA, TLS_ALERT))?;
    pause(20);
    Ok(())
}

fn tls_unanswered(scene: &mut Scene) -> Result<()> {
    let pair = asked(scene, &record(TLS_DATA, 90))?;
    say_and_close(scene, pair, &[&record(TLS_DATA, TLS_ALERT)]).map(drop)
}

fn late_request(scene: &mut Scene) -> Result<()> {
    let pair = asked(scene, REQUEST)?;
    let client = say_and_close(scene, pair, &[HEAD, &[b'x'; 500]])?;
    send(&client, REQUEST)?;
    pause(20);
    Ok(())
}

fn abort(pair: Pair) -> Result<()> {
    pair.server.set_linger(Some(Duration::ZERO))?;
    drop(pair.server);
    pause(20);
    Ok(())
}

fn abort_within(scene: &mut Scene) -> Result<()> {
    let pair = asked(scene, REQUEST)?;
    send(&pair.server, HEAD)?;
    abort(pair)
}

fn abort_after(scene: &mut Scene) -> Result<()> {
    let pair = asked(scene, REQUEST)?;
    send(&pair.server, &[HEAD, &[b'x'; 500]].concat())?;
    abort(pair)
}

/// The server's own connection, with a question that nobody answered when it exits.
fn database() -> Result<()> {
    let run = trace(&[], |scene| {
        let listener = socket(&scene.link.client, scene.family, Protocol::TCP)?;
        listener.bind(&scene.client().into())?;
        listener.listen(1)?;
        let idle = scene.listen(1)?;
        let port = listener.local_addr()?.as_socket().map_or(0, |address| address.port());
        let role = format!("ask-and-exit:{}:{port}", scene.client().ip());
        let mut child = children::start(&scene.link.server, &role, &idle)?;
        let accepted = thread::scope(|scope| scope.spawn(|| listener.accept()).join());
        let (accepted, _) = accepted.map_err(|_| anyhow::anyhow!("the acceptor panicked"))??;
        read_some(&accepted)?;
        child.wait()?;
        read_eof(&accepted)
    })?;
    let closed = run.lines.closed();
    ensure!(closed.len() == 1 && closed[0].role == Role::Client, "{closed:#?}");
    ensure!(closed[0].end.as_ref().is_some_and(|end| end.confidence.is_none()), "{closed:#?}");
    ensure!(run.lines.verdict()?.result == words::Result::Idle, "{:?}", run.lines.verdict()?.reasons);
    Ok(())
}

/// Its connection is reset in the backlog, another is refused.
fn declared_checker() -> Result<()> {
    let run = trace(&["--probe-peer", &format!("{}/32", Family::V4.client())], |scene| {
        let listener = scene.listen(16)?;
        let waiting = scene.connect(&listener)?;
        send(&waiting, REQUEST)?;
        pause(20);
        let address = scene.address_of(&listener)?;
        drop(listener);
        let refused = scene.client_socket()?;
        ensure!(refused.connect(&address).is_err(), "nothing listens");
        Ok(())
    })?;
    let verdict = run.lines.verdict()?;
    ensure!(verdict.lost + verdict.doubts == 0, "{:?}", verdict.losses);
    ensure!(
        run.lines.resets().iter().all(|reset| reset.origin == words::Origin::Checker),
        "{:#?}",
        run.lines.resets()
    );
    Ok(())
}

/// As load balancers check: connect and reset, and no byte is said.
fn resetting_checker() -> Result<()> {
    let run = trace(&[], |scene| {
        let listener = scene.listen(16)?;
        for _ in 0..3 {
            let Pair { client, server, .. } = scene.pair_at(listener.try_clone()?)?;
            client.set_linger(Some(Duration::ZERO))?;
            drop(client);
            pause(5);
            drop(server);
        }
        Ok(())
    })?;
    let verdict = run.lines.verdict()?;
    ensure!(verdict.lost + verdict.doubts == 0, "{:?}", verdict.losses);
    let endings: Vec<_> =
        run.lines.closed().iter().filter_map(|event| Some(event.end.as_ref()?.ending)).collect();
    ensure!(endings == [Ending::PeerReset; 3], "{endings:?}");
    Ok(())
}
