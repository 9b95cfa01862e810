package tcpgate

import (
	"fmt"
	"reflect"

	"github.com/tidwall/evio"
)

// layout locates what evio keeps private in a connection: its descriptor, its
// loop's epoll descriptor, and the notes waiting in that loop's poll. Integers
// and lengths of unexported fields can be read by reflection; nothing is
// written.
type layout struct {
	fd, loop, poll, epfd, notes, noteList int
}

// inspect finds the fields in a connection of the linked evio, or ErrLayout.
func inspect(ec evio.Conn) (layout, error) {
	var lay layout
	v := reflect.ValueOf(ec)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		return lay, fmt.Errorf("%w: a connection is a %s", ErrLayout, v.Kind())
	}
	conn := v.Type().Elem()
	loop, err := field(conn, "loop", reflect.Pointer, &lay.loop)
	if err != nil {
		return lay, err
	}
	poll, err := field(loop.Elem(), "poll", reflect.Pointer, &lay.poll)
	if err != nil {
		return lay, err
	}
	notes, err := field(poll.Elem(), "notes", reflect.Struct, &lay.notes)
	if err != nil {
		return lay, err
	}
	if _, err := field(notes, "notes", reflect.Slice, &lay.noteList); err != nil {
		return lay, err
	}
	if _, err := field(poll.Elem(), "fd", reflect.Int, &lay.epfd); err != nil {
		return lay, err
	}
	_, err = field(conn, "fd", reflect.Int, &lay.fd)
	return lay, err
}

func field(t reflect.Type, name string, kind reflect.Kind, index *int) (reflect.Type, error) {
	if t.Kind() != reflect.Struct {
		return nil, fmt.Errorf("%w: %s is no struct", ErrLayout, t)
	}
	f, ok := t.FieldByName(name)
	if !ok || len(f.Index) != 1 || f.Type.Kind() != kind {
		return nil, fmt.Errorf("%w: %s has no %s %s", ErrLayout, t, kind, name)
	}
	*index = f.Index[0]
	return f.Type, nil
}

func (lay layout) descriptor(ec evio.Conn) int {
	return int(reflect.ValueOf(ec).Elem().Field(lay.fd).Int())
}

func (lay layout) pollOf(ec evio.Conn) reflect.Value {
	return reflect.ValueOf(ec).Elem().Field(lay.loop).Elem().Field(lay.poll).Elem()
}

func (lay layout) epoll(ec evio.Conn) int {
	return int(lay.pollOf(ec).Field(lay.epfd).Int())
}

// tornDown tells a connection that evio closes because its loop has ended from
// one that its peer closed: only at its end does Serve leave a note (this
// package never uses Wake or Tick). Called in evio's Closed.
func (lay layout) tornDown(ec evio.Conn) bool {
	return lay.pollOf(ec).Field(lay.notes).Field(lay.noteList).Len() > 0
}
