//! A small service that also asks others: what a test places into each of many network namespaces.
//!
//! It listens on port 7000. A request bears a way to go: the service asks the first address of it with the rest,
//! and answers when it has the answer. Lines on standard input say what to ask of one's own accord:
//!
//! ```text
//! ask 17 10.1.0.2:7000,10.2.0.1:80 10.1.0.5:7000    two requests, with bytes and manners drawn from seed 17
//! rest                                              wait until nothing is under way
//! ```
//!
//! Each line is answered by one on standard output.
#![expect(clippy::print_stdout, reason = "answers go to standard output")]

use std::io::{self, BufRead, Read, Write, stdin};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use tests::sim::Random;

const PORT: u16 = 7000;
/// Who waits longer is told that something is wrong.
const PATIENCE: Duration = Duration::from_secs(10);

/// How a connection is used and ended.
const MANNERS: u8 = 6;
const CLIENT_CLOSES: u8 = 0;
const CLIENT_SHUTS_DOWN: u8 = 1;
const SERVER_ABORTS: u8 = 2;
const CLIENT_ABORTS: u8 = 3;
const ASKED_TWICE: u8 = 4;
/// Two threads of the server write the answer at a time.
const RACING: u8 = 5;

fn main() -> io::Result<()> {
    let racing = std::env::args().any(|word| word == "--racing");
    let listener = TcpListener::bind(("0.0.0.0", PORT))?;
    let busy = Arc::new(AtomicUsize::new(0));
    let serving = busy.clone();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            serving.fetch_add(1, Ordering::SeqCst);
            let serving = serving.clone();
            thread::spawn(move || {
                // Whoever asked may be gone: that is part of the play.
                let _ = serve(stream);
                serving.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
    say("ready")?;
    for line in stdin().lock().lines() {
        let line = line?;
        let mut words = line.split(' ');
        if words.next() == Some("ask") {
            let seed = words.next().and_then(|seed| seed.parse().ok()).unwrap_or(0);
            let mut random = Random::new(seed);
            for way in words {
                let manners = random.below(u64::from(MANNERS) - u64::from(!racing)) as u8;
                // Nobody may be listening there.
                let _ = ask(way, manners, random.draw());
            }
        }
        while busy.load(Ordering::SeqCst) > 0 {
            thread::sleep(Duration::from_millis(2));
        }
        say("done")?;
    }
    Ok(())
}

fn say(word: &str) -> io::Result<()> {
    println!("{word}");
    io::stdout().flush()
}

/// Asks the first of a way's addresses with the rest of it.
fn ask(way: &str, manners: u8, seed: u64) -> io::Result<()> {
    let (first, rest) = way.split_once(',').unwrap_or((way, ""));
    let address: SocketAddr = first.parse().map_err(io::Error::other)?;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut random = Random::new(seed);
    let times = if manners == ASKED_TWICE { 3 } else { 1 };
    for left in (0..times).rev() {
        let mut request = vec![manners, left as u8, rest.len() as u8];
        request.extend_from_slice(&random.draw().to_le_bytes());
        request.extend_from_slice(rest.as_bytes());
        for piece in request.chunks(1 + random.index(40)) {
            stream.write_all(piece)?;
        }
        if manners == CLIENT_SHUTS_DOWN {
            stream.shutdown(Shutdown::Write)?;
        }
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let mut answer = vec![0; u32::from_le_bytes(length) as usize];
        if manners == CLIENT_ABORTS {
            stream.read_exact(&mut answer[..1])?;
            return linger(&stream);
        }
        stream.read_exact(&mut answer)?;
    }
    if manners == CLIENT_SHUTS_DOWN {
        stream.read_exact(&mut [0])?;
    }
    Ok(())
}

fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    loop {
        let mut head = [0; 11];
        stream.read_exact(&mut head)?;
        let [manners, left, length, seed @ ..] = head;
        let mut way = vec![0; usize::from(length)];
        stream.read_exact(&mut way)?;
        let mut random = Random::new(u64::from_le_bytes(seed));
        if !way.is_empty() {
            let manners = [CLIENT_CLOSES, CLIENT_SHUTS_DOWN, ASKED_TWICE][random.index(3)];
            // The answer comes all the same.
            let _ = ask(&String::from_utf8_lossy(&way), manners, random.draw());
        }
        if manners == SERVER_ABORTS {
            return linger(&stream);
        }
        let answer = vec![7; 2 + random.index(3000)];
        stream.write_all(&(answer.len() as u32).to_le_bytes())?;
        if manners == RACING {
            race(&stream, &answer)?;
        } else {
            answer.chunks(1 + random.index(2000)).try_for_each(|piece| stream.write_all(piece))?;
        }
        if left == 0 {
            break;
        }
    }
    // The other end closes first, unless it only waits for that.
    let _ = stream.read(&mut [0]);
    Ok(())
}

fn race(stream: &TcpStream, answer: &[u8]) -> io::Result<()> {
    let (one, other) = answer.split_at(answer.len() / 2);
    thread::scope(|scope| {
        let racer = scope.spawn(|| write_slowly(stream, one));
        write_slowly(stream, other)?;
        racer.join().map_err(|_| io::Error::other("the other writer panicked"))?
    })
}

fn write_slowly(mut stream: &TcpStream, bytes: &[u8]) -> io::Result<()> {
    bytes.chunks(64).try_for_each(|piece| stream.write_all(piece))
}

/// Throws the connection away: a reset goes out.
fn linger(stream: &TcpStream) -> io::Result<()> {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    // SAFETY: the socket is open, and the option's value lives throughout the call and has the size that is told.
    let set = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of::<libc::linger>() as libc::socklen_t,
        )
    };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
