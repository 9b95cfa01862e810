package gossip

import (
	"log"
	"strings"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// maxLine bounds what is logged of one line: parts of it come from the network.
const maxLine = 300

// newLog gives memberlist a logger that ends in ours. Errors become warnings, since nearly all tell of the network or of
// strangers and none of a fault of ours, and what repeats within a second is sampled.
func newLog(l *zap.Logger, m *metrics) *log.Logger {
	l = l.WithOptions(zap.WithCaller(false), zap.WrapCore(func(core zapcore.Core) zapcore.Core {
		return zapcore.NewSamplerWithOptions(core, time.Second, 10, 100)
	}))
	return log.New(lines{l, m}, "", 0)
}

type lines struct {
	zap     *zap.Logger
	metrics *metrics
}

func (w lines) Write(p []byte) (int, error) {
	line := strings.TrimSpace(string(p))
	level := zapcore.WarnLevel
	for _, l := range []struct {
		prefix string
		level  zapcore.Level
	}{
		{"[DEBUG] ", zapcore.DebugLevel}, {"[INFO] ", zapcore.DebugLevel}, {"[WARN] ", zapcore.WarnLevel},
		{"[ERR] ", zapcore.WarnLevel}, {"[ERROR] ", zapcore.WarnLevel},
	} {
		if rest, ok := strings.CutPrefix(line, l.prefix); ok {
			line, level = rest, l.level
			break
		}
	}
	line = strings.TrimPrefix(line, "memberlist: ")
	if level == zapcore.WarnLevel {
		w.metrics.complaint(line)
	}
	if len(line) > maxLine {
		line = line[:maxLine]
	}
	// One message for all: the sampler counts by message, and the lines differ by address.
	w.zap.Log(level, "memberlist", zap.String("line", strings.ToValidUTF8(line, "?")))
	return len(p), nil
}
