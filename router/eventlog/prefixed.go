package eventlog

import "context"

// Prefixed gives a log whose topics and groups have names that begin with prefix, so that several clusters can share brokers.
// Closing it closes log.
func Prefixed(log Log, prefix string) Log {
	if prefix == "" {
		return log
	}
	return prefixed{log, prefix}
}

type prefixed struct {
	log    Log
	prefix string
}

func (p prefixed) Append(e Entry, done func(Appended, error)) error {
	e.Topic = p.prefix + e.Topic
	return p.log.Append(e, done)
}

func (p prefixed) Open(ctx context.Context, topic string, partition int32, from int64) (Reader, error) {
	return p.log.Open(ctx, p.prefix+topic, partition, from)
}

func (p prefixed) Bounds(ctx context.Context, topic string, partition int32) (start, end int64, err error) {
	return p.log.Bounds(ctx, p.prefix+topic, partition)
}

func (p prefixed) Topic(ctx context.Context, name string) (TopicInfo, error) {
	return p.log.Topic(ctx, p.prefix+name)
}

func (p prefixed) CreateTopic(ctx context.Context, spec TopicSpec) error {
	spec.Name = p.prefix + spec.Name
	return p.log.CreateTopic(ctx, spec)
}

func (p prefixed) Committed(ctx context.Context, group, topic string) (map[int32]int64, error) {
	return p.log.Committed(ctx, p.prefix+group, p.prefix+topic)
}

func (p prefixed) Commit(ctx context.Context, group, topic string, offsets map[int32]int64) error {
	return p.log.Commit(ctx, p.prefix+group, p.prefix+topic, offsets)
}

func (p prefixed) Close(ctx context.Context) error { return p.log.Close(ctx) }
