package clustertest

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

// EmptyRedis has Redis forget everything at once, as one does that was started anew without its data. It returns how many keys
// there were. The server's other users lose theirs, too: it is for test servers alone. A RedisRelay that is cut is passed by.
func (c *Cluster) EmptyRedis(ctx context.Context) (keys int, err error) {
	fail := func(err error) (int, error) { return 0, fmt.Errorf("empty redis: %w", err) }
	addr := c.Redis
	if c.RedisRelay != nil {
		addr = c.RedisRelay.To()
	}
	conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return fail(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return fail(err)
	}
	if _, err := conn.Write([]byte("*1\r\n$6\r\nDBSIZE\r\n*1\r\n$8\r\nFLUSHALL\r\n")); err != nil {
		return fail(err)
	}
	in := bufio.NewReader(conn)
	size, err := in.ReadString('\n')
	if err != nil {
		return fail(err)
	}
	if keys, err = strconv.Atoi(strings.TrimSpace(strings.TrimPrefix(size, ":"))); err != nil {
		return fail(fmt.Errorf("DBSIZE answered %q", size))
	}
	done, err := in.ReadString('\n')
	if err != nil {
		return fail(err)
	}
	if !strings.HasPrefix(done, "+OK") {
		return fail(fmt.Errorf("FLUSHALL answered %q", done))
	}
	return keys, nil
}
