// Calls an API with a token from brokerd over HTTP: Rust, without a crate (so the API is http://). A program with a client
// that knows Unix sockets, such as hyper or ureq, is shorter. Usage: app GRANT URL
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

type Answer = Result<(u16, String), Box<dyn std::error::Error>>;

/// HTTP/1.0: the answer ends with the connection.
fn send(mut stream: impl Read + Write, request: &str) -> Answer {
    stream.write_all(request.as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or("no HTTP answer")?;
    let status = head.split(' ').nth(1).ok_or("no HTTP answer")?;
    Ok((status.parse()?, body.to_string()))
}

fn broker(method: &str, path: &str, body: &str) -> Result<String, Box<dyn std::error::Error>> {
    let socket = std::env::var("BROKERD_HTTP_SOCKET").unwrap_or("/run/brokerd/http.sock".into());
    let length = body.len();
    let request = format!("{method} {path} HTTP/1.0\r\nContent-Length: {length}\r\n\r\n{body}");
    match send(UnixStream::connect(socket)?, &request)? {
        (200, found) => Ok(found.trim().to_string()),
        (_, found) => Err(format!("no token: {}", found.trim()).into()),
    }
}

fn call(url: &str, header: &str) -> Answer {
    let (host, path) = url.strip_prefix("http://").and_then(|rest| rest.split_once('/')).ok_or("not http://HOST/PATH")?;
    send(TcpStream::connect(host)?, &format!("GET /{path} HTTP/1.0\r\nHost: {host}\r\n{header}\r\n\r\n"))
}

fn run(grant: &str, url: &str) -> Result<String, Box<dyn std::error::Error>> {
    let header = broker("GET", &format!("/v1/header/{grant}"), "")?;
    let mut answer = call(url, &header)?;
    if answer.0 == 401 {
        // The API refused the token before its time: report it, once.
        broker("POST", &format!("/v1/refused/{grant}"), header.rsplit(' ').next().unwrap_or(""))?;
        answer = call(url, &broker("GET", &format!("/v1/header/{grant}"), "")?)?;
    }
    if answer.0 == 200 { Ok(answer.1) } else { Err(format!("{url} answered {}", answer.0).into()) }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match run(&arguments[1], &arguments[2]) {
        Ok(body) => print!("{body}"),
        Err(error) => {
            eprintln!("{error}");
            std::process::exit(1);
        }
    }
}
