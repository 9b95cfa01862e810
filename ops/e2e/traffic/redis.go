package traffic

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
)

// Redis is a connection of its own to Redis, to look at it with eyes that are not the product's.
type Redis struct {
	conn net.Conn
	r    *bufio.Reader
}

// DialRedis connects.
func DialRedis(ctx context.Context, addr string) (*Redis, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &Redis{conn, bufio.NewReader(conn)}, nil
}

// Close ends the connection.
func (r *Redis) Close() { _ = r.conn.Close() } // nothing of it is used any more

// Do gives a command and returns its answer: a text, a number as text, or the texts of a list, one a line.
func (r *Redis) Do(args ...string) (string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(args))
	for _, a := range args {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(a), a)
	}
	if _, err := io.WriteString(r.conn, b.String()); err != nil {
		return "", err
	}
	return r.answer()
}

func (r *Redis) answer() (string, error) {
	line, err := r.r.ReadString('\n')
	if err != nil {
		return "", err
	}
	line = strings.TrimRight(line, "\r\n")
	if line == "" {
		return "", errors.New("redis: an empty line")
	}
	kind, rest := line[0], line[1:]
	switch kind {
	case '+', ':':
		return rest, nil
	case '-':
		return "", errors.New("redis: " + rest)
	}
	n, err := strconv.Atoi(rest)
	if err != nil || n < 0 {
		return "", err
	}
	if kind == '$' {
		text := make([]byte, n+len("\r\n"))
		_, err := io.ReadFull(r.r, text)
		return string(text[:n]), err
	}
	all := make([]string, n)
	for i := range all {
		if all[i], err = r.answer(); err != nil {
			return "", err
		}
	}
	return strings.Join(all, "\n"), nil
}

// Places counts the users of whom a place is kept, in a cluster's namespace.
func (r *Redis) Places(namespace string) (int, error) {
	keys, err := r.Do("KEYS", namespace+"future:presence:*")
	if err != nil || keys == "" {
		return 0, err
	}
	return 1 + strings.Count(keys, "\n"), nil
}
