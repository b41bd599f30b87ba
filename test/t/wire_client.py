#!/usr/bin/env python3
"""Speaks the PostgreSQL protocol the way drivers of orchestrators do.

Npgsql and its like send statements with bound parameters: Parse, Bind,
Describe, Execute, Sync, with types given or left open, values as text or
binary, and results wanted as text or binary.  psql cannot do that on every
supported version, hence this client.  Standard library only.

    wire_client.py --host DIR_OR_NAME --port N --user NAME --dbname NAME

reads requests from standard input, one JSON object per line, and writes one
JSON object per line.  A request is

    {"sql": "... $1 ...", "params": [{"value": 1, "type": "bigint", "binary": true}],
     "binary": true}          results in binary form
    {"sql": "...", "leave": true}   hang up after sending, without reading

The password, if one is asked for, comes from PGPASSWORD.
"""

import argparse
import base64
import datetime
import hashlib
import hmac
import json
import os
import socket
import struct
import sys

TYPES = {'bool': 16, 'bigint': 20, 'text': 25, 'interval': 1186, 'timestamptz': 1184, 'jsonb': 3802}
EPOCH = datetime.datetime(2000, 1, 1, tzinfo=datetime.timezone.utc)
MAX_MESSAGE = 64 * 1024 * 1024


class ServerError(Exception):
    """An ErrorResponse, as a dictionary of its fields."""


def encode(param):
    """One parameter: (type oid, format, bytes or None)."""
    kind = param.get('type')
    oid = TYPES[kind] if kind else 0
    value = param.get('value')
    if value is None:
        return oid, 0, None
    if not param.get('binary'):
        if isinstance(value, bool):
            value = 't' if value else 'f'
        elif not isinstance(value, str):
            value = json.dumps(value)
        return oid, 0, value.encode()
    if kind == 'bool':
        return oid, 1, b'\1' if value else b'\0'
    if kind == 'bigint':
        return oid, 1, struct.pack('!q', value)
    if kind == 'timestamptz':
        moment = datetime.datetime.fromisoformat(value)
        return oid, 1, struct.pack('!q', (moment - EPOCH) // datetime.timedelta(microseconds=1))
    if kind == 'jsonb':
        return oid, 1, b'\1' + json.dumps(value).encode()
    return oid, 1, str(value).encode()


def decode(value, oid, binary):
    """A column as something JSON can hold."""
    if value is None:
        return None
    if not binary:
        return value.decode()
    if oid == 16:
        return value == b'\1'
    if oid == 20:
        return struct.unpack('!q', value)[0]
    if oid == 1184:
        moment = EPOCH + datetime.timedelta(microseconds=struct.unpack('!q', value)[0])
        return moment.isoformat()
    return value.decode()


def string(text):
    return text.encode() + b'\0'


class Connection:
    def __init__(self, args):
        if args.host.startswith('/'):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.connect(os.path.join(args.host, '.s.PGSQL.%d' % args.port))
        else:
            self.socket = socket.create_connection((args.host, args.port))
        self.stream = self.socket.makefile('rb')
        body = struct.pack('!i', 196608)
        for key, value in (('user', args.user), ('database', args.dbname), ('client_encoding', 'UTF8')):
            body += string(key) + string(value)
        self.socket.sendall(struct.pack('!i', len(body) + 5) + body + b'\0')
        self.sign_in(os.environ.get('PGPASSWORD', ''))

    def send(self, *messages):
        self.socket.sendall(b''.join(kind + struct.pack('!i', len(body) + 4) + body
                                     for kind, body in messages))

    def receive(self):
        """The next message that is no notice or parameter."""
        while True:
            head = self.stream.read(5)
            if len(head) < 5:
                raise EOFError('the server hung up')
            length = struct.unpack('!i', head[1:])[0] - 4
            if not 0 <= length <= MAX_MESSAGE:
                raise ValueError('bad message length')
            body = self.stream.read(length)
            if head[:1] == b'E':
                raise ServerError({field[:1].decode(): field[1:].decode()
                                   for field in body.split(b'\0') if field})
            if head[:1] not in b'NSA':
                return head[:1], body

    def sign_in(self, password):
        while True:
            kind, body = self.receive()
            if kind == b'Z':
                return
            if kind == b'R':
                method = struct.unpack('!i', body[:4])[0]
                if method == 10:
                    self.scram(password)
                elif method != 0:
                    raise ValueError('unknown authentication method %d' % method)

    def scram(self, password):
        nonce = base64.b64encode(os.urandom(18)).decode()
        bare = 'n=,r=' + nonce
        first = ('n,,' + bare).encode()
        self.send((b'p', string('SCRAM-SHA-256') + struct.pack('!i', len(first)) + first))
        _, body = self.receive()
        challenge = body[4:].decode()
        given = dict(item.split('=', 1) for item in challenge.split(','))
        if not given['r'].startswith(nonce):
            raise ValueError('the server changed the nonce')
        salted = hashlib.pbkdf2_hmac('sha256', password.encode(), base64.b64decode(given['s']), int(given['i']))
        key = hmac.digest(salted, b'Client Key', 'sha256')
        final = 'c=biws,r=' + given['r']
        signed = ','.join((bare, challenge, final)).encode()
        proof = bytes(a ^ b for a, b in zip(key, hmac.digest(hashlib.sha256(key).digest(), signed, 'sha256')))
        self.send((b'p', (final + ',p=' + base64.b64encode(proof).decode()).encode()))
        _, body = self.receive()
        expected = hmac.digest(hmac.digest(salted, b'Server Key', 'sha256'), signed, 'sha256')
        if body[4:] != b'v=' + base64.b64encode(expected):
            raise ValueError('the server does not know the password')

    def query(self, request):
        params = [encode(param) for param in request.get('params', [])]
        binary = bool(request.get('binary'))
        parse = string('') + string(request['sql']) + struct.pack('!h', len(params))
        parse += b''.join(struct.pack('!i', oid) for oid, _, _ in params)
        bind = string('') + string('') + struct.pack('!h', len(params))
        bind += b''.join(struct.pack('!h', form) for _, form, _ in params)
        bind += struct.pack('!h', len(params))
        for _, _, value in params:
            bind += struct.pack('!i', -1) if value is None else struct.pack('!i', len(value)) + value
        bind += struct.pack('!hh', 1, 1 if binary else 0)
        self.send((b'P', parse), (b'B', bind), (b'D', b'P' + string('')),
                  (b'E', string('') + struct.pack('!i', 0)), (b'S', b''))
        if request.get('leave'):
            self.socket.shutdown(socket.SHUT_WR)
            self.stream.close()
            self.socket.close()
            return {'left': True}
        return self.result(binary)

    def result(self, binary):
        columns, rows, error, tag = [], [], None, None
        while True:
            try:
                kind, body = self.receive()
            except ServerError as caught:
                error = caught.args[0]
                continue
            if kind == b'T':
                columns = self.columns(body)
            elif kind == b'D':
                rows.append(self.row(body, columns, binary))
            elif kind == b'C':
                tag = body[:-1].decode()
            elif kind == b'Z':
                break
        if error is not None:
            return {'error': {'sqlstate': error['C'], 'message': error['M'], 'hint': error.get('H')}}
        return {'columns': [name for name, _ in columns], 'rows': rows, 'tag': tag}

    @staticmethod
    def columns(body):
        columns, at = [], 2
        for _ in range(struct.unpack('!h', body[:2])[0]):
            end = body.index(b'\0', at)
            columns.append((body[at:end].decode(), struct.unpack('!i', body[end + 7:end + 11])[0]))
            at = end + 19
        return columns

    @staticmethod
    def row(body, columns, binary):
        row, at = {}, 2
        for name, oid in columns:
            length = struct.unpack('!i', body[at:at + 4])[0]
            at += 4
            value = None
            if length >= 0:
                value = body[at:at + length]
                at += length
            row[name] = decode(value, oid, binary)
        return row


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--host', required=True)
    parser.add_argument('--port', type=int, required=True)
    parser.add_argument('--user', required=True)
    parser.add_argument('--dbname', required=True)
    args = parser.parse_args()
    try:
        connection = Connection(args)
    except ServerError as error:
        print(json.dumps({'error': {'sqlstate': error.args[0]['C'], 'message': error.args[0]['M']}}), flush=True)
        return 1
    for line in sys.stdin:
        answer = connection.query(json.loads(line))
        print(json.dumps(answer), flush=True)
        if 'left' in answer:
            break
    return 0


if __name__ == '__main__':
    sys.exit(main())
