//go:build linux

// Command record makes a transcript of what a version of this repository's host and agent say to each other: that of a commit. It takes the commit's files apart from
// the working tree, puts the scenes and a small program into them, and runs that: what it prints is the transcript.
//
//	record -commit 711f732 -scenes first >internal/testing/transcript/testdata/01-first.txt
package main

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/tangle-network/microvm-runtime/internal/testing/transcript"
)

//go:embed player.go.txt
var player string

const scenesDir = "internal/testing/transcript/scenes"

func main() {
	commit := flag.String("commit", "", "the commit (default: HEAD)")
	names := flag.String("scenes", "first,attach,tty,tunnels,copy,watch,clone", "files of scenes that the commit can play")
	flag.Parse()
	text, err := record(*commit, strings.Split(*names, ","))
	if err != nil {
		fmt.Fprintln(os.Stderr, "record:", err)
		os.Exit(1)
	}
	fmt.Print(text)
}

func record(commit string, names []string) (text string, err error) {
	of := "commit " + commit
	if commit == "" {
		commit, of = "HEAD", "the commit before this file's"
	}
	dir, err := os.MkdirTemp("", "record-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	shared, err := os.MkdirTemp("", "shared-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(shared)
	if err := takeOut(commit, dir); err != nil {
		return "", err
	}
	if err := addPlayer(dir, names); err != nil {
		return "", err
	}
	run := exec.Command("go", "run", "./internal/testing/player", shared)
	run.Dir, run.Stderr = dir, os.Stderr
	out, err := run.Output()
	if err != nil {
		return "", fmt.Errorf("play: %w", err)
	}
	var chunks []transcript.Chunk
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var c transcript.Chunk
		if err := decoder.Decode(&c); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return "", err
		}
		chunks = append(chunks, c)
	}
	t, err := transcript.Make(chunks, shared)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("# Scenes %s, as host and agent of %s played them. Made by internal/testing/transcript/cmd/record.\n", strings.Join(names, ", "), of) + transcript.NameIDs(t.String()), nil
}

// takeOut puts a commit's files into a directory.
func takeOut(commit, dir string) error {
	archive := exec.Command("git", "archive", commit)
	unpack := exec.Command("tar", "-x", "-C", dir)
	var err error
	if unpack.Stdin, err = archive.StdoutPipe(); err != nil {
		return err
	}
	archive.Stderr, unpack.Stderr = os.Stderr, os.Stderr
	if err := unpack.Start(); err != nil {
		return err
	}
	return errors.Join(archive.Run(), unpack.Wait())
}

// addPlayer adds the scenes and the program that plays them.
func addPlayer(dir string, names []string) error {
	if err := os.RemoveAll(filepath.Join(dir, scenesDir)); err != nil {
		return err
	}
	var calls []string
	for _, file := range append([]string{"scenes"}, names...) {
		source := file
		if file == "first" {
			source = "scenes"
		}
		text, err := os.ReadFile(filepath.Join(scenesDir, source+".go"))
		if err != nil {
			return err
		}
		if err := write(filepath.Join(dir, scenesDir, source+".go"), string(text)); err != nil {
			return err
		}
		if file != "scenes" {
			function := strings.ToUpper(file[:1]) + file[1:]
			if file == "tty" {
				function = "TTY"
			}
			calls = append(calls, "scenes."+function+"()")
		}
	}
	return write(filepath.Join(dir, "internal/testing/player/main.go"), strings.ReplaceAll(player, "SCENES", strings.Join(calls, ", ")))
}

func write(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o644)
}
