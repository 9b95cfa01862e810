package tui

import (
	"bufio"
	"context"
	"errors"
	"io"
	"strings"
	"time"
)

// maxLine bounds a typed line in bytes; more than a message may have, so that the refusal can say so.
const maxLine = 64 << 10

// input reads lines when asked for, never ahead, so that a password reader may have the terminal in between.
type input struct {
	ask   chan struct{}
	lines chan line
	in    io.Reader
}

type line struct {
	text string
	err  error
}

func newInput(in io.Reader) *input {
	i := &input{ask: make(chan struct{}), lines: make(chan line, 1), in: in}
	go i.run()
	return i
}

// run ends after close, or after the first error.
func (i *input) run() {
	r := bufio.NewReader(i.in)
	for range i.ask {
		text, err := readLine(r)
		i.lines <- line{text, err}
		if err != nil && !errors.Is(err, errLong) {
			break
		}
	}
	for range i.ask {
		i.lines <- line{err: io.EOF}
	}
}

var errLong = errors.New("that line is too long")

func readLine(r *bufio.Reader) (string, error) {
	var text []byte
	long := false
	for {
		part, err := r.ReadSlice('\n')
		if len(text)+len(part) <= maxLine {
			text = append(text, part...)
		} else {
			long = true
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err != nil && (len(text) == 0 || !errors.Is(err, io.EOF)):
			return "", err
		case long:
			return "", errLong
		}
		return strings.TrimRight(string(text), "\r\n"), nil
	}
}

// next asks for a line and waits for it.
func (i *input) next(ctx context.Context) (string, error) {
	select {
	case i.ask <- struct{}{}:
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
	select {
	case l := <-i.lines:
		return l.text, l.err
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// close lets the reader go. One that waits in Read is freed if the input knows deadlines; else it ends with its input.
func (i *input) close() {
	close(i.ask)
	if d, ok := i.in.(interface{ SetReadDeadline(time.Time) error }); ok {
		_ = d.SetReadDeadline(time.Unix(1, 0)) // a terminal refuses; there is nothing else to be done
	}
}
