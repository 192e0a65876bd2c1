//go:build linux

package scenes

import (
	"context"
	"io"
	"slices"
	"time"

	"github.com/tangle-network/microvm-runtime/guest"
)

// Tunnels are scenes of connections, of variables and secrets, and of a system that is not the agent's.
func Tunnels() []Scene {
	return []Scene{
		{"a tunnel", "dial", func(ctx context.Context, d guest.Dialer, dir string) error {
			conn, err := guest.DialTCP(ctx, d, dir+"/echo.sock")
			if err != nil {
				return err
			}
			defer conn.Close()
			if _, err := io.WriteString(conn, "hello"); err != nil {
				return err
			}
			if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
				return err
			}
			text, err := io.ReadAll(conn)
			return expect(string(text), "hello", err)
		}},
		{"a variable", "env", func(ctx context.Context, d guest.Dialer, _ string) error {
			if err := guest.SetEnv(ctx, d, map[string]string{"SCENE": "played"}); err != nil {
				return err
			}
			out, err := guest.Command(d, "sh", "-c", "echo $SCENE").Output(ctx)
			return expect(string(out), "played\n", err)
		}},
		{"a secret", "secrets", func(ctx context.Context, d guest.Dialer, _ string) error {
			if err := guest.SetSecret(ctx, d, "word", []byte("sesame")); err != nil {
				return err
			}
			names, err := guest.ListSecrets(ctx, d)
			if err == nil && !slices.Equal(names, []string{"word"}) {
				err = io.ErrUnexpectedEOF
			}
			if err != nil {
				return err
			}
			return guest.DeleteSecret(ctx, d, "word")
		}},
		{"a clock that is denied", "clock", func(ctx context.Context, d guest.Dialer, _ string) error {
			_, err := guest.SetClock(ctx, d, time.Unix(1e9, 0))
			return denied(err)
		}},
		{"entropy that is denied", "entropy", func(ctx context.Context, d guest.Dialer, _ string) error {
			return denied(guest.AddEntropy(ctx, d, []byte("0123456789")))
		}},
		{"a name that is denied", "hostname", func(ctx context.Context, d guest.Dialer, _ string) error {
			return denied(guest.SetHostname(ctx, d, "scene"))
		}},
	}
}
