// The mutants of a TypeScript file, all in one text: every place where one token can be changed becomes `__m(n) ? changed : original`,
// so that a mutant is switched on by its number and nothing is compiled or loaded again. Used by mutation.cjs.
'use strict';
const ts = require('typescript');

const swaps = {
  '<': '<=',
  '<=': '<',
  '>': '>=',
  '>=': '>',
  '===': '!==',
  '!==': '===',
  '&&': '||',
  '||': '&&',
  '+': '-',
  '-': '+',
  '*': '/',
  '/': '*',
};

/** Types, imports and what an error says are not behaviour. */
function aside(node) {
  return (
    ts.isTypeNode(node) ||
    ts.isImportDeclaration(node) ||
    ts.isInterfaceDeclaration(node) ||
    ts.isTypeAliasDeclaration(node) ||
    ts.isTemplateExpression(node) ||
    ts.isThrowStatement(node) ||
    (ts.isCallExpression(node) && /^(fail|refuse|refused)$/.test(node.expression.getText()))
  );
}

/** What a node can become: the text that replaces it whole, and how a report names the change. */
function changeOf(node) {
  if (ts.isBinaryExpression(node)) {
    const operator = node.operatorToken.getText();
    const swap = swaps[operator];
    const text = ts.isStringLiteralLike(node.left) || ts.isStringLiteralLike(node.right);
    if (swap === undefined || (text && swap === '-')) return undefined;
    // && binds closer than ||: each side keeps its own parentheses.
    return { text: `(${node.left.getText()}) ${swap} (${node.right.getText()})`, at: node.operatorToken, shown: swap };
  }
  const named = node.parent && 'name' in node.parent && node.parent.name === node;
  if (node.kind === ts.SyntaxKind.TrueKeyword) return { text: 'false', at: node };
  if (node.kind === ts.SyntaxKind.FalseKeyword) return { text: 'true', at: node };
  if (ts.isNumericLiteral(node) && !named) return { text: `${node.getText()} + 1`, at: node };
  if (ts.isPrefixUnaryExpression(node) && node.operator === ts.SyntaxKind.ExclamationToken)
    return { text: node.operand.getText(), at: node };
  if (node.parent && ts.isIfStatement(node.parent) && node.parent.expression === node)
    return { text: 'false', at: node };
  return undefined;
}

/**
 * `text` with all its mutants, numbered from `first`, and the list of them: file, line, column, what it was, what it becomes.
 * A condition of an `if` that is also a comparison has two.
 */
function instrument(file, text, first) {
  const source = ts.createSourceFile(file, text, ts.ScriptTarget.ES2022, true);
  const mutants = [];
  const add = (change, original) => {
    const { line, character } = source.getLineAndCharacterOfPosition(change.at.getStart());
    const was = change.at.getText();
    mutants.push({ file, line: line + 1, column: character + 1, was, becomes: change.shown ?? change.text });
    return `(__m(${first + mutants.length - 1}) ? (${change.text}) : (${original}))`;
  };
  const rewrite = (node) => {
    if (aside(node)) return text.slice(node.getFullStart(), node.getEnd());
    let out = '';
    let at = node.getFullStart();
    ts.forEachChild(node, (child) => {
      out += text.slice(at, child.getFullStart()) + rewrite(child);
      at = child.getEnd();
    });
    out += text.slice(at, node.getEnd());
    const lead = text.slice(node.getFullStart(), node.getStart());
    let body = out.slice(lead.length);
    const own = changeOf(node);
    if (own) body = add(own, body);
    const condition = node.parent && ts.isIfStatement(node.parent) && node.parent.expression === node;
    if (condition && own && own.text !== 'false') body = add({ text: 'false', at: node }, body);
    return lead + body;
  };
  return { text: rewrite(source), mutants };
}

module.exports = { instrument };
