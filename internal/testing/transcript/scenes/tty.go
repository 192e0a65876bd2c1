//go:build linux

package scenes

import (
	"context"

	"github.com/tangle-network/microvm-runtime/guest"
)

// TTY are scenes of terminals.
func TTY() []Scene {
	return []Scene{{"a terminal", "tty", func(ctx context.Context, d guest.Dialer, _ string) error {
		c := guest.Command(d, "sh", "-c", "test -t 0 && echo tty")
		c.TTY = &guest.TTY{Rows: 24, Cols: 80}
		out, err := c.Output(ctx)
		return expect(string(out), "tty\r\n", err)
	}}}
}
