//go:build linux

// Package scenes is what a host asks of an agent, a scene a feature: for transcripts of versions of both (package transcript).
//
// There is only one type, a [Scene]. Each file has those of a time, and uses nothing of package guest that is younger: so it compiles with what the repository had then.
//
// # Caveats
//
// What a scene asks for is fixed, but for ids: a transcript is found by it.
package scenes

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/tangle-network/microvm-runtime/guest"
)

// Scene is one thing that a host asks for, and what must come of it.
type Scene struct {
	Name    string
	Feature string // What the agent must have; empty for what all have.
	// Run returns what is not as it must be. The directory is the same for host and guest: "echo.sock" in it answers with what it is sent, and "src" has a file "f".
	Run func(ctx context.Context, d guest.Dialer, dir string) error
}

// First are scenes that all versions can play.
func First() []Scene {
	return []Scene{
		{"health", "", func(ctx context.Context, d guest.Dialer, _ string) error {
			h, err := guest.GetHealth(ctx, d)
			if err == nil && h.Protocol != 1 {
				err = fmt.Errorf("protocol %d", h.Protocol)
			}
			return err
		}},
		{"a command and its streams", "", func(ctx context.Context, d guest.Dialer, _ string) error {
			var out, errs strings.Builder
			c := guest.Command(d, "sh", "-c", "echo out; echo err >&2; exit 3")
			c.Stdout, c.Stderr = &out, &errs
			err := c.Run(ctx)
			return expect(fmt.Sprint(err, " ", out.String(), errs.String()), "exit status 3 out\nerr\n", nil)
		}},
		{"standard input", "", func(ctx context.Context, d guest.Dialer, _ string) error {
			c := guest.Command(d, "cat")
			c.Stdin = strings.NewReader("in\n")
			out, err := c.Output(ctx)
			return expect(string(out), "in\n", err)
		}},
		{"variables, directory, user", "", func(ctx context.Context, d guest.Dialer, _ string) error {
			c := guest.Command(d, "sh", "-c", "echo $A $PWD")
			c.Env, c.Dir, c.User = []string{"A=b"}, "/usr", fmt.Sprint(os.Getuid())
			out, err := c.Output(ctx)
			return expect(string(out), "b /usr\n", err)
		}},
		{"a program that is not there", "", func(ctx context.Context, d guest.Dialer, _ string) error {
			if err := guest.Command(d, "/nowhere").Run(ctx); !errors.Is(err, guest.ErrNotFound) {
				return fmt.Errorf("not %w: %v", guest.ErrNotFound, err)
			}
			return nil
		}},
		{"a sync", "", func(ctx context.Context, d guest.Dialer, _ string) error { return guest.Sync(ctx, d) }},
		{"a shutdown that is denied", "", func(ctx context.Context, d guest.Dialer, _ string) error { return denied(guest.Shutdown(ctx, d)) }},
	}
}

func expect(got, want string, err error) error {
	if err == nil && got != want {
		err = fmt.Errorf("%q, want %q", got, want)
	}
	return err
}

func denied(err error) error {
	if errors.Is(err, guest.ErrDenied) {
		return nil
	}
	return fmt.Errorf("not %w: %w", guest.ErrDenied, errors.Join(err, errors.New("-")))
}
