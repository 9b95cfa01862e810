package chat

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
)

// Login is a session that has begun or goes on.
type Login struct {
	// Session is without the account's password hash.
	Session Session
	// Token lets the device come back; it is given once, and empty for a session that was resumed.
	Token string
}

// Response is the login as the protocol has it.
func (l *Login) Response(degraded bool) *pb.SessionResponse {
	return &pb.SessionResponse{
		User: l.Session.Account.User(), Token: l.Token, SessionId: wire.FormatID(l.Session.ID), Degraded: degraded,
	}
}

// badCredentials is the same for a name that nobody has and for a wrong password.
func badCredentials() error {
	return wire.Errorf(pb.Code_CODE_BAD_CREDENTIALS, "that name and password do not go together")
}

func nameTaken() error {
	return wire.Errorf(pb.Code_CODE_NAME_TAKEN, "that name is taken")
}

// byName finds an account: NOT_FOUND, or UNAVAILABLE.
func (s *Service) byName(ctx context.Context, op, name string) (Account, error) {
	a, err := s.store.AccountByName(ctx, name)
	switch {
	case errors.Is(err, ErrNotFound):
		return Account{}, wire.Errorf(pb.Code_CODE_NOT_FOUND, "there is nobody of that name")
	case err != nil:
		return Account{}, away(op, err)
	}
	return a, nil
}

// Register makes an account and its first session: NAME_TAKEN, RATE_LIMITED when too many passwords wait to be hashed. If
// the answer was lost the account may exist: the client then finds its name taken, and can log in. addr is where the client is,
// with or without a port.
func (s *Service) Register(ctx context.Context, r *pb.RegisterRequest, _ string) (*Login, error) {
	const op = "register"
	// Looked up first since hashing is dear; the store has the last word.
	switch _, err := s.store.AccountByName(ctx, r.GetName()); {
	case err == nil:
		return nil, nameTaken()
	case !errors.Is(err, ErrNotFound):
		return nil, away(op, err)
	}
	hash, err := s.hash(ctx, op, r.GetPassword())
	if err != nil {
		return nil, err
	}
	a, err := s.store.CreateAccount(ctx, Account{Name: r.GetName(), Email: r.GetEmail(), PasswordHash: hash, CreatedMs: s.nowMs()})
	switch {
	case errors.Is(err, ErrNameTaken):
		return nil, nameTaken()
	case err != nil:
		return nil, away(op, err)
	}
	return s.begin(ctx, op, a, r.GetDevice())
}

// Login begins a session: BAD_CREDENTIALS, RATE_LIMITED. An unknown name costs the same time as a wrong password. addr is where
// the client is, with or without a port; wrong passwords are counted by name and address, so that nobody can lock another out.
func (s *Service) Login(ctx context.Context, r *pb.LoginRequest, addr string) (*Login, error) {
	const op = "login"
	key := attemptKey(r.GetName(), addr)
	if wait := s.attempts.take(s.opts.Now(), key); wait > 0 {
		return nil, limited(wait, "too many attempts to log in")
	}
	a, err := s.store.AccountByName(ctx, r.GetName())
	unknown := errors.Is(err, ErrNotFound)
	if err != nil && !unknown {
		s.attempts.giveBack(s.opts.Now(), key)
		return nil, away(op, err)
	}
	hash := a.PasswordHash
	if unknown {
		hash = s.hasher.dummy
	}
	ok, outdated, err := s.hasher.verify(ctx, hash, r.GetPassword())
	switch {
	case err != nil: // not tried
		s.attempts.giveBack(s.opts.Now(), key)
		return nil, hashFailure(op, err)
	case !ok || unknown:
		return nil, badCredentials()
	}
	s.attempts.giveBack(s.opts.Now(), key)
	if outdated {
		s.rehash(ctx, a, r.GetPassword())
	}
	return s.begin(ctx, op, a, r.GetDevice())
}

// rehash stores the password under today's parameters. If that fails the old hash still holds, and the next log-in tries again.
func (s *Service) rehash(ctx context.Context, a Account, password string) {
	if hash, err := s.hash(ctx, "rehash", password); err == nil {
		_ = s.store.SetPasswordHash(ctx, a.ID, a.PasswordHash, hash)
	}
}

func (s *Service) hash(ctx context.Context, op, password string) (string, error) {
	salt := make([]byte, saltBytes)
	if _, err := io.ReadFull(s.opts.Rand, salt); err != nil {
		return "", fmt.Errorf("chat: %s: random bytes: %w", op, err)
	}
	hash, err := s.hasher.hash(ctx, salt, password)
	if err != nil {
		return "", hashFailure(op, err)
	}
	return hash, nil
}

// begin makes the session of a device and its token.
func (s *Service) begin(ctx context.Context, op string, a Account, device *pb.Device) (*Login, error) {
	random := make([]byte, tokenBytes)
	if _, err := io.ReadFull(s.opts.Rand, random); err != nil {
		return nil, fmt.Errorf("chat: %s: random bytes: %w", op, err)
	}
	token := base64.RawURLEncoding.EncodeToString(random)
	session, err := s.store.CreateSession(ctx, Session{
		Account: a, DeviceID: device.GetId(), DeviceName: device.GetName(), CreatedMs: s.nowMs(),
	}, hashToken(token))
	if err != nil {
		return nil, away(op, err)
	}
	session.Account.PasswordHash = ""
	return &Login{Session: session, Token: token}, nil
}

const tokenBytes = 32

// hashToken is what is stored of a token. It needs no salt: a token is as random as its hash.
func hashToken(token string) TokenHash { return sha256.Sum256([]byte(token)) }

// Resume goes on with a session by its token: SESSION_ENDED if it has ended, or is another device's.
func (s *Service) Resume(ctx context.Context, r *pb.ResumeRequest) (*Login, error) {
	session, err := s.store.SessionByToken(ctx, hashToken(r.GetToken()))
	switch {
	case errors.Is(err, ErrNotFound) || err == nil && session.DeviceID != r.GetDevice().GetId():
		return nil, wire.Errorf(pb.Code_CODE_SESSION_ENDED, "that session has ended: log in")
	case err != nil:
		return nil, away("resume", err)
	}
	session.Account.PasswordHash = ""
	return &Login{Session: session}, nil
}

// Logout ends a session for good.
func (s *Service) Logout(ctx context.Context, session int64) error {
	if err := s.store.EndSession(ctx, session); err != nil {
		return away("logout", err)
	}
	return nil
}
