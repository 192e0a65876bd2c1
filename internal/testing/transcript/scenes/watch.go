//go:build linux

package scenes

import (
	"context"
	"errors"
	"os"

	"github.com/tangle-network/microvm-runtime/guest"
)

// Watch are scenes of what a guest tells, and of copies that go on.
func Watch() []Scene {
	return []Scene{
		{"a directory that is watched", "watch", func(ctx context.Context, d guest.Dialer, dir string) error {
			events, err := guest.Watch(ctx, d, dir)
			if err != nil {
				return err
			}
			if err := guest.Command(d, "sh", "-c", "echo >"+dir+"/watched").Run(ctx); err != nil {
				return err
			}
			for event, err := range events {
				if err != nil {
					return err
				}
				if event.Kind == guest.FileWritten {
					return expect(event.Name, "watched", nil)
				}
			}
			return errors.New("nothing is told")
		}},
		{"events of the system", "events", func(ctx context.Context, d guest.Dialer, _ string) error {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			_, err := guest.Events(ctx, d, nil)
			return err
		}},
		{"a tree to the guest, resumed", "resume", func(ctx context.Context, d guest.Dialer, dir string) error {
			src, err := tree()
			defer os.RemoveAll(src)
			if err != nil {
				return err
			}
			return guest.CopyTo(ctx, d, src, dir+"/resumed", &guest.CopyOptions{Resume: true})
		}},
		{"a tree from the guest, resumed", "resume", func(ctx context.Context, d guest.Dialer, dir string) error {
			dst, err := os.MkdirTemp("", "scene-")
			defer os.RemoveAll(dst)
			if err != nil {
				return err
			}
			return guest.CopyFrom(ctx, d, dir+"/src", dst, &guest.CopyOptions{Exact: true, Resume: true})
		}},
	}
}
