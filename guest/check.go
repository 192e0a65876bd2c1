package guest

import (
	"strings"
	"time"
	"unicode/utf8"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// check refuses what makes no sense, before the guest is asked.
func (c *Cmd) check() error {
	if (c.ID != "" || c.attach) && !wire.ValidID(c.ID) {
		return &microvm.FieldError{Field: "Cmd.ID", Value: c.ID, Reason: "must be 1 to 64 of a-z, A-Z, 0-9"}
	}
	if c.TTY != nil {
		if err := c.TTY.check(); err != nil {
			return err
		}
	}
	if c.attach {
		return nil
	}
	if c.Detached {
		if err := c.unattached(); err != nil {
			return err
		}
	}
	if len(c.Args) == 0 || c.Args[0] == "" {
		return &microvm.FieldError{Field: "Cmd.Args", Value: c.Args, Reason: "must begin with a program"}
	}
	if c.Timeout < 0 {
		return &microvm.FieldError{Field: "Cmd.Timeout", Value: c.Timeout, Reason: "must not be negative"}
	}
	for _, pair := range c.Env {
		if name, _, ok := strings.Cut(pair, "="); !ok || name == "" {
			return &microvm.FieldError{Field: "Cmd.Env", Value: name, Reason: "must be NAME=VALUE"}
		}
	}
	for field, texts := range map[string][]string{"Cmd.Args": c.Args, "Cmd.Env": c.Env, "Cmd.Dir": {c.Dir}, "Cmd.User": {c.User}} {
		for _, text := range texts {
			if !utf8.ValidString(text) || strings.ContainsRune(text, 0) { // JSON would change the one, and no program can be given the other
				if field == "Cmd.Env" { // whose values are for nobody's log
					text, _, _ = strings.Cut(text, "=")
				}
				return &microvm.FieldError{Field: field, Value: text, Reason: "must be UTF-8 without NUL bytes"}
			}
		}
	}
	return nil
}

// milliseconds rounds up: a time-out that is not zero must not become none.
func milliseconds(d time.Duration) int64 {
	ms := d.Milliseconds()
	if d%time.Millisecond > 0 {
		ms++
	}
	return ms
}
