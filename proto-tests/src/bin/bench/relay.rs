//! A proxy that understands nothing, as anybody would write it with tokio: one thread, one task a direction pair,
//! `copy_bidirectional`. It shows what the runtime costs without fusewire.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};

/// Relays each address to the one behind it, until it is killed.
pub(crate) fn run(legs: &[&str]) {
    let legs: Vec<SocketAddr> = legs.iter().map(|leg| leg.parse().expect("an address")).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let serve = |leg: &[SocketAddr]| tokio::spawn(serve(leg[0], leg[1]));
        let serving: Vec<_> = legs.chunks_exact(2).map(serve).collect();
        for leg in serving {
            leg.await.expect("a listener");
        }
    });
}

async fn serve(listen: SocketAddr, upstream: SocketAddr) {
    let listener = TcpListener::bind(listen).await.expect("a port");
    loop {
        let Ok((mut client, _)) = listener.accept().await else { continue };
        tokio::spawn(async move {
            let Ok(mut server) = TcpStream::connect(upstream).await else { return };
            let _ = client.set_nodelay(true).and(server.set_nodelay(true));
            let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        });
    }
}
