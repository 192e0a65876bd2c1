//go:build linux

package fakevmm

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

// level is how much is logged.
type level int

const (
	levelOff level = iota
	levelError
	levelWarn
	levelInfo
)

// levels are their names. What is only for debugging the fake does not say.
var levels = map[string]level{"off": levelOff, "error": levelError, "warn": levelWarn, "warning": levelWarn, "info": levelInfo, "debug": levelInfo, "trace": levelInfo}

// logFile is the program's log: of standard output until it has a file.
type logFile struct {
	mu   sync.Mutex
	id   string
	most level
	file *os.File
}

// set sets the level, also where the file can't be opened. Without a path, the log goes where it went.
func (l *logFile) set(most level, path string, open bool, flags int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.most = most
	if !open {
		return nil
	}
	f, err := os.OpenFile(path, flags|syscall.O_NONBLOCK, 0o666)
	if err != nil {
		return variant{"LoggerUpdateError", osError(err)}
	}
	if l.file != nil {
		l.file.Close()
	}
	l.file = f
	return nil
}

// say writes a line. What is refused it says as standard error does.
func (l *logFile) say(at level, line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if at > l.most {
		return
	}
	to := l.file
	if to == nil {
		to = os.Stdout
	}
	fmt.Fprintf(to, "%s [%s:main] %s\n", time.Now().Format("2006-01-02T15:04:05.000000000"), l.id, line)
}

// levelOf returns a level by its name, which may be in any case.
func levelOf(name string) (level, bool) {
	most, ok := levels[strings.ToLower(name)]
	return most, ok
}
