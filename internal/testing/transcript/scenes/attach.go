//go:build linux

package scenes

import (
	"context"
	"errors"
	"fmt"

	"github.com/tangle-network/microvm-runtime/guest"
)

// Attach are scenes of commands that outlive their caller.
func Attach() []Scene {
	return []Scene{
		{"a command that is left and attached to", "detached", func(ctx context.Context, d guest.Dialer, _ string) error {
			c := guest.Command(d, "sh", "-c", "echo kept; exit 4")
			c.ID, c.Detached = "left", true
			if err := c.Start(ctx); err != nil {
				return err
			}
			out, err := guest.Attach(d, "left").Output(ctx)
			if err == nil || string(out) != "kept\n" || err.Error() != "exit status 4" {
				return errors.Join(fmt.Errorf("%q", out), err)
			}
			return nil
		}},
		{"a list", "processes", func(ctx context.Context, d guest.Dialer, _ string) error {
			c := guest.Command(d, "sleep", "5")
			c.ID, c.Detached = "sleeper", true
			if err := c.Start(ctx); err != nil {
				return err
			}
			all, err := guest.List(ctx, d)
			for _, p := range all {
				if p.ID == "sleeper" && p.State == guest.StateRunning && p.Args[0] == "sleep" {
					return err
				}
			}
			return errors.Join(fmt.Errorf("%+v", all), err)
		}},
		{"nobody to attach to", "attach", func(ctx context.Context, d guest.Dialer, _ string) error {
			if err := guest.Attach(d, "nobody").Run(ctx); !errors.Is(err, guest.ErrNotFound) {
				return errors.Join(errors.New("it is found"), err)
			}
			return nil
		}},
	}
}
