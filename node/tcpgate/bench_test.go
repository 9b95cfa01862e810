package tcpgate

import (
	"net"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// quiet is a Handler that only counts who has come.
type quiet struct{ opened chan *Conn }

func (q quiet) Opened(c *Conn)                   { q.opened <- c }
func (q quiet) Frame(*Conn, []byte)              {}
func (q quiet) Closed(*Conn, CloseReason, error) {}
func (q quiet) Drained(*Conn)                    {}

// crowd is a gate with n connections whose clients are bare descriptors, which
// cost the process no memory of Go's.
func crowd(b *testing.B, n int) (g *Gate, conns []*Conn, clients []int) {
	b.Helper()
	q := quiet{make(chan *Conn, n)}
	g = listen(b, q, func(o *Options) { o.HelloTimeout, o.LoginTimeout, o.IdleTimeout = -1, -1, -1 })
	addr := g.Addr().(*net.TCPAddr)
	for range n {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { unix.Close(fd) })
		if err := unix.Connect(fd, &unix.SockaddrInet4{Port: addr.Port, Addr: [4]byte(addr.IP.To4())}); err != nil {
			b.Fatal(err)
		}
		clients = append(clients, fd)
		conns = append(conns, <-q.opened)
	}
	return g, conns, clients
}

// readAll takes size bytes from every client.
func readAll(b *testing.B, clients []int, size int) {
	buf := make([]byte, size)
	for _, fd := range clients {
		for got := 0; got < size; {
			n, err := unix.Read(fd, buf[got:])
			if err != nil || n == 0 {
				b.Fatal(n, err)
			}
			got += n
		}
	}
}

// BenchmarkDeliver is one 200-byte frame for each of 1,000 connections, read by
// their clients. bare is the floor: write(2) in a plain loop by the reader. An
// operation is one frame on one connection; cpu-ns/op is the process's CPU time
// of it, clients' reads included.
func BenchmarkDeliver(b *testing.B) {
	const n = 1000
	payload := make([]byte, 200)
	run := func(b *testing.B, clients []int, deliver func()) {
		var before, after unix.Rusage
		b.ReportAllocs()
		b.ResetTimer()
		if err := unix.Getrusage(unix.RUSAGE_SELF, &before); err != nil {
			b.Fatal(err)
		}
		frames := 0
		for ; frames < b.N; frames += n {
			deliver()
			readAll(b, clients, len(payload)+4)
		}
		if err := unix.Getrusage(unix.RUSAGE_SELF, &after); err != nil {
			b.Fatal(err)
		}
		cpu := after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano()
		b.ReportMetric(float64(cpu)/float64(frames), "cpu-ns/frame")
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(frames), "ns/frame")
		b.ReportMetric(0, "ns/op") // b.N is rounded up to whole rounds
	}
	b.Run("gate", func(b *testing.B) {
		g, conns, clients := crowd(b, n)
		f := appendFrame(nil, payload)
		run(b, clients, func() {
			if g.Push(f, conns) != nil {
				b.Fatal("refused")
			}
		})
	})
	b.Run("bare", func(b *testing.B) {
		var clients, servers []int
		ln, err := new(net.ListenConfig).Listen(b.Context(), "tcp4", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		defer ln.Close()
		addr := ln.Addr().(*net.TCPAddr)
		for range n {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { unix.Close(fd) })
			if err := unix.Connect(fd, &unix.SockaddrInet4{Port: addr.Port, Addr: [4]byte(addr.IP.To4())}); err != nil {
				b.Fatal(err)
			}
			c, err := ln.Accept()
			if err != nil {
				b.Fatal(err)
			}
			file, err := c.(*net.TCPConn).File()
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { file.Close() })
			c.Close()
			clients, servers = append(clients, fd), append(servers, int(file.Fd()))
		}
		f := appendFrame(nil, payload)
		run(b, clients, func() {
			for _, fd := range servers {
				if _, err := unix.Write(fd, f); err != nil {
					b.Fatal(err)
				}
			}
		})
	})
}

// BenchmarkIdle prints what an idle connection holds of Go's memory, evio's part
// included. An operation is a garbage collection with 4,000 of them.
func BenchmarkIdle(b *testing.B) {
	const n = 4000
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc + m.StackInuse
	}
	before := heap()
	_, conns, clients := crowd(b, n)
	held := heap() - before
	for b.Loop() {
		runtime.GC()
	}
	b.ReportMetric(float64(held)/n-16, "B/conn") // 16: what the two slices hold
	runtime.KeepAlive(conns)
	runtime.KeepAlive(clients)
}
