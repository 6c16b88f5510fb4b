package reportbridge

import (
	"bytes"
	"encoding/json"
	"strconv"
)

func (c *child) readStderr() {
	defer close(c.stderrEnded)
	lines := newLineReader(c.stderr, stderrLineMax)
	for {
		line, _, err := lines.next()
		if err != nil {
			return
		}
		text := c.log.scrub(string(bytes.TrimSuffix(line, []byte{'\r'})))
		c.mu.Lock()
		c.tail = append(c.tail, text)
		if len(c.tail) > stderrLines {
			c.tail = append(c.tail[:0:0], c.tail[1:]...)
		}
		c.mu.Unlock()
		c.log.stderr(text)
	}
}

func (c *child) readStdout() {
	defer close(c.stdoutEnded)
	lines := newLineReader(c.stdout, c.maxLine)
	for {
		line, length, err := lines.next()
		if err != nil {
			return
		}
		if length > int64(c.maxLine) {
			c.log.protocol(ProtocolTooLong, line, length)
			continue
		}
		if line = bytes.TrimSpace(line); len(line) > 0 {
			c.receive(line)
		}
	}
}

// receive hands one answer to the call that waits for it.
func (c *child) receive(line []byte) {
	var message struct {
		JSONRPC string          `json:"jsonrpc"`
		ID      json.RawMessage `json:"id"`
		Result  json.RawMessage `json:"result"`
		Error   *wireError      `json:"error"`
	}
	size := int64(len(line))
	if err := json.Unmarshal(line, &message); err != nil {
		kind := ProtocolNotAnswer
		if !json.Valid(line) {
			kind = ProtocolNotJSON
		}
		c.log.protocol(kind, line, size)
		return
	}
	hasError := message.Error != nil && message.Error.Code != nil
	if message.JSONRPC != "2.0" || (message.Result == nil) != hasError {
		c.log.protocol(ProtocolNotAnswer, line, size)
		return
	}
	if string(message.ID) == "null" && hasError {
		c.log.protocol(ProtocolNoID, line, size)
		return
	}
	id, err := strconv.ParseInt(string(message.ID), 10, 64)
	if err != nil {
		c.log.protocol(ProtocolUnknownID, line, size)
		return
	}
	if kind := c.deliver(id, reply{message.Result, message.Error}); kind != "" {
		c.log.protocol(kind, line, size)
	}
}

// deliver returns what is wrong with the answer, if anything.
func (c *child) deliver(id int64, r reply) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if answer, ok := c.waiting[id]; ok {
		delete(c.waiting, id)
		answer <- r // has room for the one reply a call gets
		return ""
	}
	if _, ok := c.gaveUp[id]; ok {
		delete(c.gaveUp, id)
		c.log.late()
		return ""
	}
	if c.log.wasIssued(id) {
		return ProtocolDuplicate
	}
	return ProtocolUnknownID
}
