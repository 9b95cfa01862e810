package app

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/node"
	"github.com/futurechat/future/node/tcpgate"
	"github.com/futurechat/future/router/chat"
	"github.com/futurechat/future/router/eventlog"
	"github.com/futurechat/future/router/peer"
	"github.com/futurechat/future/router/presence"
)

// The clients of BenchmarkGroup are a process of their own: this one then counts the node's work alone, and neither runs out of
// descriptors.
const crowdVariable = "FUTURE_TEST_CROWD" // "address number"

func TestMain(m *testing.M) {
	if of := os.Getenv(crowdVariable); of != "" {
		if err := crowd(of); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func crowdDevice(i int) string { return fmt.Sprintf("00000000-0000-7000-8000-%012d", i+1) }

// crowd logs n people in, each on a connection, says a word, and one more whenever all have got another frame, until its input ends.
func crowd(of string) error {
	var addr string
	var n int
	if _, err := fmt.Sscan(of, &addr, &n); err != nil {
		return err
	}
	poll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return err
	}
	go func() { // the end of the parent is the end of this
		_, _ = bufio.NewReader(os.Stdin).ReadByte()
		os.Exit(0)
	}()
	host, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return err
	}
	index := map[int32]int{}
	rest := make([][]byte, n)
	greeting := make([]int, n)
	for i := range n {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		if err := unix.Connect(fd, &unix.SockaddrInet4{Port: host.Port, Addr: [4]byte(host.IP.To4())}); err != nil {
			return err
		}
		hello, err1 := wire.AppendFrame(nil, &pb.Envelope{Id: 1, Body: &pb.Envelope_Hello{Hello: &pb.HelloRequest{Version: 1}}})
		both, err2 := wire.AppendFrame(hello, &pb.Envelope{Id: 2, Body: &pb.Envelope_Resume{Resume: &pb.ResumeRequest{
			Token: strconv.Itoa(i), Device: &pb.Device{Id: crowdDevice(i)},
		}}})
		if _, err := unix.Write(fd, both); errors.Join(err1, err2, err) != nil {
			return errors.Join(err1, err2, err)
		}
		index[int32(fd)] = i
		if err := unix.EpollCtl(poll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}); err != nil {
			return err
		}
	}
	events, buf := make([]unix.EpollEvent, 1024), make([]byte, 64<<10)
	frames, entered := 0, 0
	for {
		got, err := unix.EpollWait(poll, events, -1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		for _, e := range events[:max(got, 0)] {
			size, err := unix.Read(int(e.Fd), buf)
			if err != nil || size == 0 {
				return fmt.Errorf("read: %d, %w", size, err)
			}
			i := index[e.Fd]
			in := append(rest[i], buf[:size]...)
			for len(in) >= 4 && len(in) >= 4+int(binary.BigEndian.Uint32(in)) {
				in = in[4+int(binary.BigEndian.Uint32(in)):]
				if greeting[i]++; greeting[i] <= 2 { // hello, session
					if greeting[i] == 2 {
						entered++
					}
					if entered == n {
						entered++
						fmt.Println("entered")
					}
					continue
				}
				if frames++; frames == n {
					frames = 0
					fmt.Println("all")
				}
			}
			rest[i] = append(rest[i][:0], in...)
		}
	}
}

// alone is presence of a node that is alone and has a lease.
type alone struct{ node *node.Node }

func (p alone) Register(c uint64, _ int64, _ string) { p.node.Registered(c, false) }
func (p alone) Unregister(uint64)                    {}
func (p alone) RegisterGroup(g int64)                { p.node.GroupRegistered(g, false) }
func (p alone) UnregisterGroup(int64)                {}
func (p alone) Incarnation() string                  { return "life" }

type nowhere struct{}

func (nowhere) Locate(_ context.Context, users []int64) ([][]presence.Place, error) {
	return make([][]presence.Place, len(users)), nil
}

// BenchmarkGroup has 10,000 people on one node, each on a socket, in groups of one size, and an operation is a message of 200 bytes
// from a router's frame to each group: so all sizes make the same deliveries to the same sockets. The next operation comes once all
// have the last. cpu-ns/delivery is this process's CPU time, kernel included, and longest-turn-ms the longest time that connections
// of the gate's one loop waited for others.
func BenchmarkGroup(b *testing.B) {
	for _, n := range []int{100, 1000, 10_000} {
		b.Run(fmt.Sprintf("members=%d", n), func(b *testing.B) { benchGroup(b, 10_000, n) })
	}
}

func benchGroup(b *testing.B, n, size int) {
	ctx := b.Context()
	store := chat.NewMemory(chat.MemoryOptions{})
	members := make([]int64, n)
	for i := range n {
		a, err := store.CreateAccount(ctx, chat.Account{Name: fmt.Sprint("user ", i)})
		if err != nil {
			b.Fatal(err)
		}
		members[i] = a.ID
		if _, err := store.CreateSession(ctx, chat.Session{Account: a, DeviceID: crowdDevice(i)}, sha256.Sum256([]byte(strconv.Itoa(i)))); err != nil {
			b.Fatal(err)
		}
	}
	topic := eventlog.State{Topic: chat.TopicMessages, Partitions: 1, Epoch: 1}
	service := chat.New(chat.Options{Store: store, Topic: topic})
	var all []int64
	for some := range slices.Chunk(members, size) {
		g, _, err := store.CreateGroup(ctx, chat.Group{Name: "some", Owner: some[0]}, some, func(chat.Group) (*pb.Message, error) { return &pb.Message{}, nil })
		if err != nil {
			b.Fatal(err)
		}
		all = append(all, g.ID)
	}
	nd, err := node.New(node.Options{Name: "n", Cluster: "c", Topic: topic, Service: service, Locator: nowhere{}, Queue: 2 * n, MaxFrame: wire.DefaultMaxFrame})
	if err != nil {
		b.Fatal(err)
	}
	nd.Start(alone{nd})
	registry := prometheus.NewRegistry()
	gate, err := tcpgate.Listen(tcpgate.Options{Addr: "127.0.0.1:0", Handler: gateHandler{nd}, IdleTimeout: -1, Registerer: registry})
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d", crowdVariable, gate.Addr(), n))
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		b.Fatal(err)
	}
	said := bufio.NewScanner(out)
	await := func(word string) {
		if !said.Scan() || said.Text() != word {
			b.Fatalf("the clients say %q, want %q", said.Text(), word)
		}
	}
	b.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
		_ = gate.Close(context.WithoutCancel(ctx))
		nd.Stop()
	})
	await("entered")

	text := strings.Repeat("x", 150)
	number := 0
	message := func(group int64) {
		number++
		i := number
		body, err := (&pb.Message{
			Conversation: wire.Group(group), Seq: eventlog.Seq(1, int64(i)), Sender: &pb.User{Id: "1", Name: "user 0"}, ClientMsgId: wire.NewMessageID(),
			Payload: &pb.Payload{Kind: &pb.Payload_Text{Text: &pb.Text{Text: text}}},
		}).MarshalVT()
		if err != nil {
			b.Fatal(err)
		}
		nd.Forward(1, peer.Forward{Incarnation: "life", RouterEpoch: 1, Number: uint64(i), Messages: []peer.Message{
			{Seq: eventlog.Seq(1, int64(i)), Body: body, Group: group, Version: 1},
		}})
	}
	messages := func() {
		for _, g := range all {
			message(g)
		}
		await("all")
	}
	messages() // all are there, and what is made once is made
	_ = gauge(b, registry, longest)
	before := cpu(b)
	rounds := 0
	for b.Loop() {
		rounds++
		messages()
	}
	b.ReportMetric(float64(cpu(b)-before)/float64(rounds*n), "cpu-ns/delivery")
	b.ReportMetric(1000*gauge(b, registry, longest), "longest-turn-ms")
}

const longest = "future_gate_longest_turn_seconds" // since it was last asked for

func cpu(b *testing.B) int64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

func gauge(b *testing.B, r *prometheus.Registry, name string) float64 {
	all, err := r.Gather()
	if err != nil {
		b.Fatal(err)
	}
	for _, f := range all {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	b.Fatalf("no metric %s", name)
	return 0
}
