//go:build linux

package fakevmm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

const deserializing = "An error occurred when deserializing the json body of a request: "

// lax are the types that ignore fields that they do not know.
var lax = []string{"Metrics", "MmdsContentsObject", ""}

// parseBody reads a body as the type that a route carries, and refuses what the real one does: the fields by name, no fields' types.
func (r *Release) parseBody(name string, body []byte) (map[string]json.RawMessage, error) {
	decoder := json.NewDecoder(bytes.NewReader(body))
	if token, err := decoder.Token(); err != nil || token != json.Delim('{') {
		return nil, errors.New("expected value at line 1 column 1")
	}
	all, required := r.fields(name)
	values := map[string]json.RawMessage{}
	for decoder.More() {
		key, err := decoder.Token()
		if err != nil {
			return nil, unended(body)
		}
		field := key.(string)
		if !slices.Contains(all, field) && !slices.Contains(lax, name) {
			return nil, fmt.Errorf("unknown field `%s`, expected %s at line 1 column %d", field, expected(all), decoder.InputOffset())
		}
		var value json.RawMessage
		if err := decoder.Decode(&value); err != nil {
			return nil, unended(body)
		}
		values[field] = value
	}
	if _, err := decoder.Token(); err != nil {
		return nil, unended(body)
	}
	if _, err := decoder.Token(); err != io.EOF {
		return nil, fmt.Errorf("trailing characters at line 1 column %d", decoder.InputOffset())
	}
	for _, field := range required {
		if values[field] == nil {
			return nil, fmt.Errorf("missing field `%s` at line 1 column %d", field, len(body))
		}
	}
	return values, nil
}

func unended(body []byte) error {
	return fmt.Errorf("EOF while parsing an object at line 1 column %d", len(body))
}

// expected lists fields as the real one does.
func expected(fields []string) string {
	quoted := make([]string, len(fields))
	for i, field := range fields {
		quoted[i] = "`" + field + "`"
	}
	switch len(quoted) {
	case 1:
		return quoted[0]
	case 2:
		return quoted[0] + " or " + quoted[1]
	}
	return "one of " + strings.Join(quoted, ", ")
}
