//! One request: which endpoint, which token, how long, and whether it may be sent again.
//!
//! A read is repeated at the next endpoint whatever went wrong. A write is repeated only when it
//! certainly was not done: the connection was refused, or the token. Otherwise the caller is told
//! that the outcome is unknown, because writing twice is worse than asking.

use std::time::Duration;

use tokio::time::timeout;
use tonic::{Request, Response, Status, metadata::AsciiMetadataValue, transport::Channel};

use super::EtcdClient;
use crate::{
    config::Login,
    error::{Refusal, StoreError},
    proto::etcdserverpb::{AuthenticateRequest, auth_client::AuthClient},
};

/// What a request is called in errors, and what may be done when it fails.
#[derive(Clone, Debug)]
pub(crate) struct Op {
    pub(crate) name: &'static str,
    pub(crate) subject: String,
    pub(crate) repeat: Repeat,
}

/// Whether a request that failed may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    Freely,
    WhenCertainlyNotDone,
}

/// The state of our login.
#[derive(Clone, Debug, Default)]
pub(crate) enum Token {
    #[default]
    Unknown,
    /// The server has no authentication.
    NotNeeded,
    Have(AsciiMetadataValue),
}

impl Op {
    pub(crate) fn read(name: &'static str, key: &[u8]) -> Self {
        Self { name, subject: printable(key), repeat: Repeat::Freely }
    }

    pub(crate) fn write(name: &'static str, key: &[u8]) -> Self {
        Self { name, subject: printable(key), repeat: Repeat::WhenCertainlyNotDone }
    }

    pub(crate) fn refused(&self, status: &Status) -> StoreError {
        StoreError::refused(self.name, self.subject.clone(), status)
    }

    pub(crate) fn unexpected(&self, what: &'static str) -> StoreError {
        StoreError::UnexpectedReply { op: self.name, subject: self.subject.clone(), what }
    }

    fn allows_repeat(&self, err: &StoreError) -> bool {
        match self.repeat {
            Repeat::Freely => err.is_unavailable(),
            Repeat::WhenCertainlyNotDone => err.refusal() == Some(Refusal::NotSent),
        }
    }
}

impl EtcdClient {
    /// Sends a request to the endpoints in turn until one answers or repeating would be wrong.
    pub(crate) async fn call<M, R, F, Fut>(
        &self,
        op: &Op,
        message: M,
        send: F,
    ) -> Result<R, StoreError>
    where
        M: Clone,
        F: Fn(Channel, Request<M>) -> Fut,
        Fut: Future<Output = Result<Response<R>, Status>>,
    {
        let mut tries_left = self.shared.endpoints.len();
        let mut logged_in_again = false;
        loop {
            let err = match self.attempt(op, message.clone(), &send).await {
                Ok(answer) => return Ok(answer),
                Err(err) => err,
            };
            if err.refusal() == Some(Refusal::BadToken) && self.can_log_in() && !logged_in_again {
                logged_in_again = true;
                self.forget_token().await;
                continue;
            }
            if err.is_unavailable() {
                self.next_endpoint();
            }
            tries_left = tries_left.saturating_sub(1);
            if tries_left == 0 || !op.allows_repeat(&err) {
                return Err(err);
            }
        }
    }

    async fn attempt<M, R, F, Fut>(&self, op: &Op, message: M, send: &F) -> Result<R, StoreError>
    where
        F: Fn(Channel, Request<M>) -> Fut,
        Fut: Future<Output = Result<Response<R>, Status>>,
    {
        let (channel, endpoint) = self.endpoint();
        self.within(op, async {
            let request = self.request(channel.clone(), message).await?;
            send(channel, request)
                .await
                .map(Response::into_inner)
                .map_err(|err| op.refused(&err).at(endpoint))
        })
        .await
    }

    /// Wraps a message with our token, logging in first when there is none.
    pub(crate) async fn request<M>(
        &self,
        channel: Channel,
        message: M,
    ) -> Result<Request<M>, StoreError> {
        let mut request = Request::new(message);
        let Some(login) = &self.shared.login else { return Ok(request) };
        // Held while logging in, so that many requests make one login.
        let mut token = self.shared.token.lock().await;
        if matches!(*token, Token::Unknown) {
            *token = self.log_in(channel, login).await?;
        }
        if let Token::Have(value) = &*token {
            request.metadata_mut().insert("token", value.clone());
        }
        Ok(request)
    }

    async fn log_in(&self, channel: Channel, login: &Login) -> Result<Token, StoreError> {
        let op = Op::read("authenticate", login.user.as_bytes());
        let message = AuthenticateRequest {
            name: login.user.clone(),
            password: login.password.expose().to_owned(),
        };
        let answer = self
            .within(&op, async {
                let mut auth = AuthClient::new(channel);
                auth.authenticate(message).await.map_err(|err| op.refused(&err))
            })
            .await;
        match answer {
            Ok(answer) => match AsciiMetadataValue::try_from(answer.into_inner().token) {
                Ok(token) => Ok(Token::Have(token)),
                Err(_) => Err(op.unexpected("a token that is not ASCII")),
            },
            Err(err) if err.refusal() == Some(Refusal::AuthNotEnabled) => Ok(Token::NotNeeded),
            Err(err) => Err(err),
        }
    }

    /// Gives up after the request's time.
    pub(crate) async fn within<R>(
        &self,
        op: &Op,
        work: impl Future<Output = Result<R, StoreError>>,
    ) -> Result<R, StoreError> {
        let after = self.shared.request_timeout;
        timeout(after, work).await.unwrap_or_else(|_| Err(timed_out(op, after)))
    }

    pub(crate) async fn forget_token(&self) {
        *self.shared.token.lock().await = Token::Unknown;
    }

    fn can_log_in(&self) -> bool {
        self.shared.login.is_some()
    }
}

fn timed_out(op: &Op, after: Duration) -> StoreError {
    StoreError::Timeout { op: op.name, subject: op.subject.clone(), after }
}

/// Returns a key as a reader wants it: text where it is text, the rest escaped, not endless.
pub(crate) fn printable(key: &[u8]) -> String {
    let text: String = key.escape_ascii().take(MAX_SUBJECT).map(char::from).collect();
    if text.is_empty() { "(empty)".to_owned() } else { text }
}

const MAX_SUBJECT: usize = 256;
