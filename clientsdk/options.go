package future

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"time"

	"github.com/futurechat/future/clientsdk/resume"
	"github.com/futurechat/future/clientsdk/wire"
)

// Option changes how a Client works.
type Option func(*options)

// Credentials are a session token, or a name and a password.
type Credentials struct{ Token, Name, Password string }

// Clock tells the time; the default is the system's.
type Clock interface {
	Now() time.Time
	// After returns a channel that gets one value after d, and a function that frees it.
	After(d time.Duration) (<-chan time.Time, func())
}

// Handlers are called one at a time, in the order of the events. While one runs, later events wait (see Events). None
// may call Client.Close, which waits for it.
type Handlers struct {
	Message    func(Message)
	State      func(StateChange)
	Presence   func(Presence)
	SendFailed func(SendFailed)
}

type options struct {
	logger     *slog.Logger
	dial       func(ctx context.Context, network, addr string) (net.Conn, error)
	tls        *tls.Config
	clock      Clock
	rand       *rand.Rand
	insecure   bool
	dir        string
	token      string
	refresh    func(ctx context.Context, ended error) (Credentials, error)
	device     string
	deviceName string
	client     string
	handlers   *Handlers
	outbox     int
	maxFrame   int
	backoffMin time.Duration
	backoffMax time.Duration
	timeout    time.Duration
	resume     resume.Config
}

func defaults() options {
	return options{
		logger: slog.New(slog.DiscardHandler), dial: (&net.Dialer{}).DialContext, clock: systemClock{},
		client: "future-go/1", outbox: 1024, maxFrame: 1 << 20,
		backoffMin: 100 * time.Millisecond, backoffMax: 10 * time.Second, timeout: 30 * time.Second,
		resume: resume.Defaults,
	}
}

func (o *options) check() error {
	var errs []error
	if o.device != "" {
		errs = append(errs, field("device", wire.CheckDeviceID(o.device)))
	}
	if len(o.client) > wire.MaxClientBytes {
		errs = append(errs, errors.New("client name: at most 64 bytes are allowed"))
	}
	if len([]rune(o.deviceName)) > wire.MaxDeviceRunes {
		errs = append(errs, errors.New("device name: at most 64 characters are allowed"))
	}
	if o.outbox < 1 || o.resume.Room < 1 || o.maxFrame < 1<<10 {
		errs = append(errs, errors.New("outbox and event buffer must be at least 1, the frame limit at least 1024"))
	}
	if o.backoffMin <= 0 || o.backoffMax < o.backoffMin || o.timeout <= 0 {
		errs = append(errs, errors.New("back-off and time limit must be above 0, and the longest back-off not below the shortest"))
	}
	if o.logger == nil || o.dial == nil || o.clock == nil {
		errs = append(errs, errors.New("logger, dialer and clock must not be nil"))
	}
	return errors.Join(errs...)
}

// WithLogger has the client log; it logs nothing otherwise. Neither passwords, tokens nor texts are logged.
func WithLogger(l *slog.Logger) Option { return func(o *options) { o.logger = l } }

// WithDialer makes connections by dial, as net.Dialer.DialContext does. TLS is put on top of them. Besides the addresses of Dial it is
// given those at which a node that goes down says that others serve; an error for these sends the client back to the former.
func WithDialer(dial func(ctx context.Context, network, addr string) (net.Conn, error)) Option {
	return func(o *options) { o.dial = dial }
}

// WithTLS encrypts. Without a ServerName in the configuration the host of the address is used that Dial was given: also for
// an address that a node tells of, see WithDialer.
func WithTLS(c *tls.Config) Option { return func(o *options) { o.tls = c } }

// WithClock takes the time from c.
func WithClock(c Clock) Option { return func(o *options) { o.clock = c } }

// WithRand takes jitter from r, which the client alone uses from then on.
func WithRand(r *rand.Rand) Option { return func(o *options) { o.rand = r } }

// WithInsecurePasswords allows passwords to cross a network in clear. Loopback and unix sockets need no leave.
func WithInsecurePasswords() Option { return func(o *options) { o.insecure = true } }

// WithDir keeps the device's id, the session token, positions and unacknowledged messages in a folder, so that a
// restarted program goes on where it was. One process at a time may use it.
func WithDir(dir string) Option { return func(o *options) { o.dir = dir } }

// WithToken resumes the session of a token that Session told. It goes before one found in the folder.
func WithToken(token string) Option { return func(o *options) { o.token = token } }

// WithRefresh is asked for new credentials when the session has ended while the client is to be logged in. It runs on a
// goroutine of its own; its context ends with the client. An error leaves the client LoggedOut.
func WithRefresh(f func(ctx context.Context, ended error) (Credentials, error)) Option {
	return func(o *options) { o.refresh = f }
}

// WithDevice gives the device's id, a UUID, and its name for people. A login with the same id replaces the older
// session. By default the id is made up, and kept in the folder if there is one.
func WithDevice(id, name string) Option {
	return func(o *options) { o.device, o.deviceName = id, name }
}

// WithClientName tells servers which program this is, for their statistics.
func WithClientName(name string) Option { return func(o *options) { o.client = name } }

// WithHandlers has events handed to functions; the channel of Events then brings none.
func WithHandlers(h Handlers) Option { return func(o *options) { o.handlers = &h } }

// WithOutbox bounds how many messages may await their acknowledgement; the default is 1024.
func WithOutbox(n int) Option { return func(o *options) { o.outbox = n } }

// WithEventBuffer bounds how many messages wait for the program to read them (see Events); the default is 256.
func WithEventBuffer(n int) Option { return func(o *options) { o.resume.Room = n } }

// WithMaxFrame bounds in bytes what a node may send in one frame; the default is 1 MiB.
func WithMaxFrame(n int) Option { return func(o *options) { o.maxFrame = n } }

// WithBackoff sets the shortest and longest pause between two tries to connect; the defaults are 100 ms and 10 s.
func WithBackoff(shortest, longest time.Duration) Option {
	return func(o *options) { o.backoffMin, o.backoffMax = shortest, longest }
}

// WithRequestTimeout bounds how long connecting, and a node's answer, may take before the connection is given up; the
// default is 30 s.
func WithRequestTimeout(d time.Duration) Option { return func(o *options) { o.timeout = d } }

type systemClock struct{}

func (systemClock) Now() time.Time { return time.Now() }

func (systemClock) After(d time.Duration) (<-chan time.Time, func()) {
	t := time.NewTimer(d)
	return t.C, func() { t.Stop() }
}

func field(name string, err error) error {
	if err == nil {
		return nil
	}
	return wire.Invalid(name, err)
}
