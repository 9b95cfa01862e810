package mysqlstore

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protojson"

	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
)

var errNotUTF8 = errors.New("text is not UTF-8")

// encodeBody gives a payload's JSON, as protojson has it but without the white space that protojson varies from build to build.
// Texts, which nearly all are, are written here: it is ten times as fast.
func encodeBody(p *pb.Payload) (string, error) {
	if p == nil {
		return "null", nil
	}
	if t, ok := p.GetKind().(*pb.Payload_Text); ok && t.Text != nil {
		if !utf8.ValidString(t.Text.GetText()) {
			return "", errNotUTF8
		}
		if t.Text.GetText() == "" {
			return `{"text":{}}`, nil
		}
		b := make([]byte, 0, len(t.Text.GetText())+20)
		b = append(b, `{"text":{"text":`...)
		b = appendString(b, t.Text.GetText())
		return string(append(b, "}}"...)), nil
	}
	encoded, err := protojson.Marshal(p)
	if err != nil {
		return "", fmt.Errorf("encode payload: %w", err)
	}
	var b bytes.Buffer
	if err := json.Compact(&b, encoded); err != nil {
		return "", fmt.Errorf("encode payload: %w", err)
	}
	return b.String(), nil
}

// appendString quotes as protojson does: only what JSON cannot hold is escaped.
func appendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	plain := 0 // from here on nothing was written yet
	for i := range len(s) {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		b = append(append(b, s[plain:i]...), '\\')
		plain = i + 1
		switch c {
		case '"', '\\':
			b = append(b, c)
		case '\b':
			b = append(b, 'b')
		case '\f':
			b = append(b, 'f')
		case '\n':
			b = append(b, 'n')
		case '\r':
			b = append(b, 'r')
		case '\t':
			b = append(b, 't')
		default:
			b = append(b, 'u', '0', '0', hex[c>>4], hex[c&15])
		}
	}
	return append(append(b, s[plain:]...), '"')
}

// decodeBody is the inverse. Fields that a newer program stored are passed over.
func decodeBody(body []byte) (*pb.Payload, error) {
	if string(body) == "null" {
		return nil, nil // a message without payload
	}
	p := new(pb.Payload)
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(body, p); err != nil {
		return nil, fmt.Errorf("decode payload: %w", err)
	}
	return p, nil
}
