//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"regexp"
	"testing"

	"github.com/tangle-network/microvm-runtime/guest/guesttest"
)

// TestEventsOfAGuest prints what a guest tells once, however often it is followed.
func TestEventsOfAGuest(t *testing.T) {
	for _, asJSON := range []bool{false, true} {
		agent := guesttest.New(t)
		agent.OOMKill(7, "hun\x1bgry", "/box")
		agent.Disk("disk_full", 0, 100)
		reader, writer := io.Pipe()
		e := &eventPrinter{json: asJSON, out: writer, uid: "uid", agent: agent}
		ctx, cancel := context.WithCancel(t.Context())
		e.follow(ctx)
		e.follow(ctx)
		lines := bufio.NewScanner(reader)
		for i, want := range []string{`^\S+ uid guest oom_kill of "hun\?gry", process 7 in cgroup "/box"$`, `^\S+ uid guest disk_full "/": 0 of 100 bytes are free, 0 of 0 files$`, `^\S+ uid guest oom_kill of a process that the kernel's log does not name$`} {
			if i == 2 {
				agent.OOMKill(0, "", "")
			}
			if !lines.Scan() {
				t.Fatal(lines.Err())
			}
			var event guestEvent
			switch {
			case !asJSON && !regexp.MustCompile(want).MatchString(lines.Text()):
				t.Errorf("%q, want %s", lines.Text(), want)
			case asJSON && (json.Unmarshal(lines.Bytes(), &event) != nil || event.UID != "uid" || event.Guest.Seq != uint64(i+1)):
				t.Errorf("%s", lines.Text())
			}
		}
		cancel()
		reader.Close()
		e.guests.Wait()
	}
}
