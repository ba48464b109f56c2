//! Calls whose messages are any bytes at all.

use std::{io::Read, net::SocketAddr};

use prost::bytes::{Buf, BufMut};
use tokio_stream::Stream;
use tonic::{
    IntoStreamingRequest, Status, Streaming,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};

/// A connection to a server of etcd's API.
#[derive(Clone, Debug)]
pub struct RawClient(Channel);

impl RawClient {
    /// # Panics
    ///
    /// Never: an address makes an endpoint.
    pub fn new(address: SocketAddr) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
        Self(endpoint.connect_lazy())
    }

    /// Sends one message and returns the one that answers it.
    ///
    /// # Errors
    ///
    /// What the server refuses.
    pub async fn call(&self, path: &'static str, message: Vec<u8>) -> Result<Vec<u8>, Status> {
        let mut grpc = self.ready().await?;
        let path = PathAndQuery::from_static(path);
        Ok(grpc.unary(tonic::Request::new(message), path, AnyBytes).await?.into_inner())
    }

    /// Sends messages and returns the answers as they come.
    ///
    /// # Errors
    ///
    /// What the server refuses.
    pub async fn stream(
        &self,
        path: &'static str,
        messages: impl Stream<Item = Vec<u8>> + Send + 'static,
    ) -> Result<Streaming<Vec<u8>>, Status> {
        let mut grpc = self.ready().await?;
        let path = PathAndQuery::from_static(path);
        let request = messages.into_streaming_request();
        Ok(grpc.streaming(request, path, AnyBytes).await?.into_inner())
    }

    async fn ready(&self) -> Result<Grpc<Channel>, Status> {
        let mut grpc = Grpc::new(self.0.clone());
        grpc.ready().await.map_err(|err| Status::unavailable(err.to_string()))?;
        Ok(grpc)
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct AnyBytes;

impl Codec for AnyBytes {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for AnyBytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put_slice(&item);
        Ok(())
    }
}

impl Decoder for AnyBytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut item = Vec::with_capacity(bytes.remaining());
        bytes.reader().read_to_end(&mut item).map_err(|err| Status::internal(err.to_string()))?;
        Ok(Some(item))
    }
}
